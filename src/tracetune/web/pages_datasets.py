"""Datasets: the list, one with its lengths, rows and trained tokens, and the form that builds one."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import datasets
from tracetune.app.compute import shared_compute
from tracetune.app.dataset_views import page_datasets, page_rows
from tracetune.app.datasets import Bin, Cleaning, Dataset, Manifest, length_histogram, open_dataset
from tracetune.app.evalsets import list_evalsets
from tracetune.core.errors import Conflict, InputError, NotFound, Unavailable
from tracetune.core.filters import read_filters
from tracetune.core.page import decode_cursor
from tracetune.web.choices import MAX_CHOICES, dataset_keys, model_choices
from tracetune.web.facets import FAMILIAR, label
from tracetune.web.forms import Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import number, query, segment

router = Router(tags=["pages"])

NUM_BINS = 16
FORMATS = ("trace", "tunix_sft", "training_example")
DEFAULTS = {
    "dataset_name": "",
    "dataset_version": "",
    "filters": "",
    "limit": "1000000",
    "selection_strategy": "latest",
    "seed": "",
    "dedup": "near",
    "threshold": "0.8",
    "contamination": "drop",
}
VERDICTS = {
    "clean": "clean: no row shows a problem of them",
    "contaminated": "contaminated, and kept",
    "unchecked": "unchecked: no eval set was registered",
}


@router.get("/datasets", **page_rule("read"))
def dataset_list(request: Request, cursor: str | None = None, name: str | None = None) -> HTMLResponse:
    """Every dataset, or the versions of one, the newest first."""
    found = page_datasets(cursor=cursor, name=name, home=request.app.state.settings.home)
    return render(
        request,
        "datasets.html",
        twin="/api/datasets" + query({"name": name, "cursor": cursor}),
        datasets=found.items,
        next=found.next_cursor and "/datasets" + query({"name": name, "cursor": found.next_cursor}),
        first=cursor and "/datasets" + query({"name": name}),
    )


@router.get("/datasets/new", **page_rule("read"))
def build_form(
    request: Request,
    filter: Annotated[list[str] | None, Query(max_length=50)] = None,
    name: str = "",
    version: str = "",
) -> HTMLResponse:
    """What to freeze; `filter` is KEY=VALUE, as the trace browser hands it over."""
    given = {"filters": "\n".join(filter or []), "dataset_name": name, "dataset_version": version}
    return _build_form(request, {**DEFAULTS, **given})


@router.post("/datasets/new", **page_rule("write", 409))
def build(request: Request, form: Form) -> Any:
    """Freeze the choice, and go to its page."""
    given = {name: form.one(name, value) for name, value in DEFAULTS.items()}
    try:
        manifest = datasets.build_dataset(
            given["dataset_name"],
            given["dataset_version"],
            filters=read_filters(filter(str.strip, given["filters"].splitlines()), "filters"),
            limit=form.number("limit") or datasets.MAX_ROWS,
            strategy="random" if given["selection_strategy"] == "random" else "latest",
            seed=form.number("seed"),
            cleaning=_cleaning(given),
            home=request.app.state.settings.home,
        )
    except Conflict as error:
        return _build_form(request, given, problem=str(error), status=409)
    except InputError as error:
        return _build_form(request, given, problem=str(error), status=422)
    return RedirectResponse(f"/datasets/{segment(manifest.dataset_key)}", 303)


def _build_form(request: Request, form: dict[str, str], *, problem: str = "", status: int = 200) -> HTMLResponse:
    values = {"form": form, "problem": problem, "keys": FAMILIAR}
    return render(request, "dataset_new.html", twin="/api/datasets", status=status, **values)


def _cleaning(given: Mapping[str, str]) -> Cleaning:
    try:
        threshold = float(given["threshold"] or 0.8)
    except ValueError:
        raise InputError(f"near from: must be a number, got {given['threshold'][:40]!r}") from None
    return Cleaning(
        exact_dedup=given["dedup"] != "none",
        near_dedup=threshold if given["dedup"] == "near" else None,
        contamination=given["contamination"],  # pyright: ignore[reportArgumentType]
    )


@router.get("/datasets/{key}", **page_rule("read", 404))
def dataset_page(request: Request, key: str, cursor: str | None = None) -> HTMLResponse:
    """One dataset: what is in it, what was left out, and its rows."""
    home = request.app.state.settings.home
    dataset = open_dataset(key, home)
    manifest, address = dataset.manifest, f"/datasets/{segment(key)}"
    found = page_rows(dataset, cursor=cursor)
    return render(
        request,
        "dataset.html",
        twin=f"/api{address}",
        manifest=manifest,
        filters=[f"{name} = {label(value)}" for name, value in manifest.filters.items()],
        origin=_origin(manifest),
        verdict=lambda found: VERDICTS.get(found["verdict"], found["verdict"]),
        today=_today(key, manifest.rows_sha256, _registered(home), home),
        lengths=lengths(dataset),
        rows=[(row.row, row.stored) for row in found.items],
        others=[other for other in dataset_keys(home) if other != key],
        formats=FORMATS,
        next=found.next_cursor and address + query({"cursor": found.next_cursor}),
        first=cursor and decode_cursor(cursor) and address,
    )


def _origin(manifest: Manifest) -> list[tuple[str, str]]:
    origin = manifest.origin
    named = [
        ("Session", origin.session_id),
        ("Parent dataset", origin.parent_dataset_id),
        ("Training run", origin.training_run_id),
        ("Provenance", origin.provenance and label(dict(origin.provenance))),
    ]
    return [(name, value) for name, value in named if value]


def lengths(dataset: Dataset, beside: Dataset | None = None) -> list[tuple[str, int]]:
    """One dataset's row lengths as (bin, rows), over the bins that `beside` has too."""
    bins = _lengths(dataset.folder, dataset.manifest.rows_sha256, None)
    if beside is not None:
        other = _lengths(beside.folder, beside.manifest.rows_sha256, None)
        span = (min(bins[0].low, other[0].low), max(bins[-1].high, other[-1].high) - 1)
        bins = _lengths(dataset.folder, dataset.manifest.rows_sha256, span)
    return [(f"{number(low)}–{number(high - 1)}", count) for low, high, count in bins]


@lru_cache(maxsize=256)
def _lengths(folder: Path, rows_sha256: str, span: tuple[int, int] | None) -> list[Bin]:
    """Rows never change, so they are read once; `rows_sha256` is there for a folder that was built again."""
    del rows_sha256
    return length_histogram(open_dataset(folder.name, folder.parent.parent), NUM_BINS, span)


def _registered(home: Path) -> tuple[str, ...]:
    return tuple(item.content_hash for item in list_evalsets(limit=MAX_CHOICES, home=home).items)


@lru_cache(maxsize=256)
def _today(key: str, rows_sha256: str, registered: tuple[str, ...], home: Path) -> dict[str, Any] | None:
    """Today's verdict; it changes only when the rows are others or an eval set was registered."""
    del rows_sha256, registered
    return datasets.recheck_contamination(key, home)


@router.get("/datasets/{key}/tokens", **page_rule("read", 404))
def tokens_page(
    request: Request,
    key: str,
    row: Annotated[int, Query(ge=0)] = 0,
    tokenizer: Annotated[str, Query(max_length=200)] = "tiny",
) -> HTMLResponse:
    """One row token by token, the trained ones marked."""
    home = request.app.state.settings.home
    num_rows = open_dataset(key, home).manifest.trace_count
    spans, problem = [], ""
    try:
        spans = shared_compute(home).tokens(key, row, tokenizer)["spans"]
    except (InputError, NotFound, Unavailable, Conflict) as error:
        problem = str(error)
    trained = sum(len(span["tokens"]) for span in spans if span["trained"])
    return render(
        request,
        "dataset_tokens.html",
        twin=f"/api/datasets/{segment(key)}/tokens" + query({"row": row, "tokenizer": tokenizer}),
        key=key,
        row=row,
        num_rows=num_rows,
        spans=spans,
        num_trained=trained,
        num_context=sum(len(span["tokens"]) for span in spans) - trained,
        tokenizer=tokenizer,
        tokenizers=[reference for reference, _ in model_choices(home)],
        problem=problem,
    )
