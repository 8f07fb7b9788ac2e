"""A home folder in which every field that takes text holds hostile text, and the pages that show it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.web.hostile import PAYLOADS

from tracetune.app import jobs, traces
from tracetune.app.chosen_traces import build_from_traces
from tracetune.app.dataset_views import page_datasets
from tracetune.app.datasets import Cleaning, register_evalset
from tracetune.app.evalsets import list_evalsets
from tracetune.app.evaluations import record_evaluation
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem, Score
from tracetune.evals.records import write_result

KEEP = Cleaning(exact_dedup=False, near_dedup=None, contamination="keep")
# For what is shown alone and may be long: all payloads in a few groups.
FOLDS = tuple(PAYLOADS[start : start + 20] for start in range(0, len(PAYLOADS), 20))


def hostile_pages(home: Path) -> list[str]:
    """Fill the home folder; the addresses of every page that shows something of it."""
    return [*_traces(), *_datasets(), *_evaluations(home), *_runs()]


def _traces() -> Iterator[str]:
    """One trace for each payload, which stands in all its fields, and one for each group."""
    made = [_trace((text,)) for text in PAYLOADS] + [_trace(group) for group in FOLDS]
    ids = [head.id for head in traces.add_traces(made).heads]
    yield from _listed("/traces", lambda cursor: traces.list_traces(cursor=cursor))
    yield from (f"/traces/{trace_id}" for trace_id in ids[-len(FOLDS) :])
    yield f"/traces/compare?base={ids[-1]}&other={ids[-2]}"
    yield f"/datasets/add?trace_id={ids[-1]}"
    for group in FOLDS:
        yield "/traces?" + urlencode({"q": f"fired {group[0]}", "source": group[1], **{f"meta.{t}": t for t in group}})
        yield f"/traces/{quote(group[0], safe='')}"


def _trace(texts: Sequence[str]) -> Trace:
    whole = "\n".join(texts)
    meta = {
        "source": whole,
        "tags": list(texts),
        "in": {text: text for text in texts},
        **{text: text for text in texts},
    }
    return Trace("1.0", whole, whole, tuple(Step(index, text, text) for index, text in enumerate(texts)), meta)


def _datasets() -> Iterator[str]:
    """Three payloads name each: two the dataset, one its version."""
    newest = [stored.id for stored in traces.list_traces(limit=len(FOLDS)).items]
    keys = []
    for place in range(0, len(PAYLOADS) - 2, 3):
        name, version = "".join(PAYLOADS[place : place + 2]), PAYLOADS[place + 2]
        keys.append(build_from_traces(name, version, newest, cleaning=KEEP).dataset_key)
    folders = [f"/datasets/{quote(key, safe='')}" for key in keys]
    yield from _listed("/datasets", lambda cursor: page_datasets(cursor=cursor))
    yield from folders[::10]
    yield from (f"{folders[0]}/tokens?row={row}" for row in range(len(FOLDS)))
    yield f"{folders[0]}/diff?other={quote(keys[1], safe='')}"
    for group in FOLDS:
        yield "/datasets/new?" + urlencode({"filter": group, "name": group[0], "version": group[1]}, doseq=True)
        yield f"/datasets/{quote(group[2], safe='')}"


def _evaluations(home: Path) -> Iterator[str]:
    """An eval set named by each payload, and every payload as a problem that two models answered."""
    for text in PAYLOADS:
        register_evalset([Problem("a", "1+1?", "2")], text)
    yield from _listed("/evalsets", lambda cursor: list_evalsets(cursor=cursor))
    yield "/evaluations/new"
    for place, group in enumerate(FOLDS[::2]):
        texts, name = group + FOLDS[2 * place + 1], group[0] + group[1]
        register_evalset([Problem(text, text, text, text, text) for text in texts], name)
        before, after = (_evaluation(home, name, texts, correct) for correct in (False, True))
        yield f"/evalsets/{quote(name, safe='')}"
        yield f"/evaluations/{before}"
        yield f"/evaluations/compare?before={before}&after={after}"
        yield f"/leaderboard?eval_set={quote(name, safe='')}"
    yield "/evaluations"


def _evaluation(home: Path, name: str, texts: Sequence[str], correct: bool) -> str:
    items = tuple(EvalItem(text, text, text, text, Score(correct, text, text), text, text) for text in texts)
    model, file = f"run:{correct}", home / f"{PAYLOADS.index(texts[0])}-{correct}.jsonl"
    write_result(EvalResult(model, items, {"seed": 1}), file)
    return record_evaluation(home, run_id=None, model=model, eval_set=name, file=file).evaluation_id


def _runs() -> Iterator[str]:
    """Two payloads name each run."""
    key = page_datasets(limit=1).items[0].dataset_key
    ids = []
    for place in range(0, len(PAYLOADS), 2):
        ids.append(jobs.launch("sft", name="".join(PAYLOADS[place : place + 2]), dataset=key).run_id)
    yield from _listed("/", lambda cursor: jobs.list_runs(cursor=cursor))
    yield from (f"/runs/{run_id}" for run_id in ids[::10])
    yield f"/runs/compare?ids={ids[0]},{ids[1]}"
    yield f"/lineage?kind=run&id={ids[0]}"
    yield f"/runs/new?like={ids[0]}"
    yield from ("/models/new", "/chat")


def _listed(path: str, page: Callable[[str | None], Any]) -> Iterator[str]:
    """Every page of a list."""
    cursor = None
    while True:
        yield f"{path}?cursor={cursor}" if cursor else path
        cursor = page(cursor).next_cursor
        if cursor is None:
            return
