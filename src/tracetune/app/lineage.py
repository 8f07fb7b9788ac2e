"""Where a result comes from and what came of it: traces → dataset → run → model → evaluation, each with its hash."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tracetune.app.registry import MODEL, RUN
from tracetune.app.run_files import read_run_manifest
from tracetune.core.errors import InputError, NotFound
from tracetune.core.home import home_folder
from tracetune.core.ids import content_hash
from tracetune.store import evalsets, evaluations, models, runs
from tracetune.store import lineage as pointers
from tracetune.store.evaluations import EvaluationFilter
from tracetune.store.open import Store, open_store
from tracetune.store.runs import StoredRun

Kind = Literal["traces", "dataset", "run", "checkpoint", "model", "evaluation", "eval_set"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_NODES = 120
MAX_NEXT = 40


class Node(NamedTuple):
    """One thing. `id` is what its own route takes: the dataset's key, the run's id (of its checkpoint too), the eval
    set's name; of traces, the key of the dataset that froze them. `hash` stands for its content, None before it ends.
    """

    kind: Kind
    id: str
    title: str
    hash: str | None = None
    created_at: str | None = None
    facts: Mapping[str, Any] = {}


class Edge(NamedTuple):
    """The node at `target` was made from the node at `source`; both are places in `Lineage.nodes`."""

    source: int
    target: int
    verb: str


class Lineage(NamedTuple):
    """What is above and below the node at `start`. `truncated`: there is more, only the nearest are here."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    start: int
    truncated: bool


class _Key(NamedTuple):
    kind: Kind
    id: str


class _Link(NamedTuple):
    """From a node to a neighbour; `down` when the neighbour was made from the node."""

    key: _Key
    verb: str
    down: bool


@dataclass
class _Walk:
    """One search over an open store; manifests are read once."""

    store: Store
    home: Path
    max_nodes: int
    full: bool = False
    nodes: dict[_Key, Node] = field(default_factory=dict)
    edges: dict[tuple[_Key, _Key], str] = field(default_factory=dict)


def lineage(kind: Kind, id: str, home: Path | None = None, *, max_nodes: int = MAX_NODES) -> Lineage:
    """The graph around one thing: all it was made from, and all that was made of it. Raises NotFound, InputError."""
    if kind not in KINDS:
        raise InputError(f"kind: must be one of {', '.join(KINDS)}, got {kind!r:.40}")
    start = _Key(kind, id)
    with open_store(home) as store:
        walk = _Walk(store, home_folder(home), max_nodes)
        walk.nodes[start] = _NODES[kind](walk, id)
        for down in (False, True):
            _follow(walk, start, down=down)
    places = {key: place for place, key in enumerate(walk.nodes)}
    edges = tuple(
        Edge(places[source], places[target], verb)
        for (source, target), verb in walk.edges.items()
        if source in places and target in places
    )
    return Lineage(tuple(walk.nodes.values()), edges, places[start], walk.full)


def _follow(walk: _Walk, start: _Key, *, down: bool) -> None:
    """Breadth first, so that what is cut off is what is farthest."""
    waiting, seen = deque([start]), {start}
    while waiting:
        key = waiting.popleft()
        for link in _LINKS[key.kind](walk, key.id):
            if link.down != down:
                continue
            if not _reach(walk, link.key):
                continue
            pair = (key, link.key) if down else (link.key, key)
            walk.edges[pair] = link.verb
            if link.key not in seen:
                seen.add(link.key)
                waiting.append(link.key)


def _reach(walk: _Walk, key: _Key) -> bool:
    """Whether the node is in the graph; one that is gone, or for which there is no room, is not."""
    if key in walk.nodes:
        return True
    if len(walk.nodes) >= walk.max_nodes:
        walk.full = True
        return False
    try:
        walk.nodes[key] = _NODES[key.kind](walk, key.id)
    except NotFound:
        return False
    return True


def _of_traces(walk: _Walk, key: str) -> Node:
    manifest = pointers.dataset_manifest(walk.store, key)
    count = manifest["trace_count"]
    chosen = {name: manifest[name] for name in ("filters", "selection_strategy", "seed")}
    return Node("traces", key, f"{count:,} {'trace' if count == 1 else 'traces'}", facts=chosen)


def _of_dataset(walk: _Walk, key: str) -> Node:
    manifest = pointers.dataset_manifest(walk.store, key)
    facts = {"trace_count": manifest["trace_count"]}
    return Node("dataset", key, key, manifest["content_hash"], manifest["created_at"], facts)


def _of_run(walk: _Walk, run_id: str) -> Node:
    run = runs.get_run(walk.store, run_id)
    facts = {"kind": run.kind, "state": run.state, "model": run.spec.get("model")}
    return Node("run", run_id, run.name, content_hash(dict(run.spec)), run.created_at, facts)


def _of_checkpoint(walk: _Walk, run_id: str) -> Node:
    run = runs.get_run(walk.store, run_id)
    files = _saved_files(walk, run)
    if not files:
        raise NotFound(f"Run {run_id} has saved no final model")
    return Node("checkpoint", run_id, "final model", content_hash(files), run.finished_at, {"files": len(files)})


def _of_model(walk: _Walk, model_id: str) -> Node:
    model = models.get_model(walk.store, model_id)
    facts = {"name": model.name, "version": model.version}
    return Node("model", model_id, f"{model.name} v{model.version}", model.content_hash, model.created_at, facts)


def _of_evaluation(walk: _Walk, evaluation_id: str) -> Node:
    found = evaluations.get_evaluation(walk.store, evaluation_id)
    accuracy = found.summary["metrics"].get("accuracy")
    told = f"{100 * accuracy['value']:.1f} % on {found.eval_set}" if accuracy else f"no score on {found.eval_set}"
    facts = {"model": found.model, "accuracy": accuracy and accuracy["value"]}
    return Node("evaluation", evaluation_id, told, found.file_sha256, found.created_at, facts)


def _of_eval_set(walk: _Walk, name: str) -> Node:
    found = evalsets.get_evalset(walk.store, name)
    return Node("eval_set", name, name, found.content_hash, facts={"num_problems": len(found.problems)})


def _around_traces(walk: _Walk, key: str) -> list[_Link]:
    del walk
    return [_Link(_Key("dataset", key), "frozen as", down=True)]


def _around_dataset(walk: _Walk, key: str) -> list[_Link]:
    manifest = pointers.dataset_manifest(walk.store, key)
    links = [_Link(_Key("traces", key), "frozen as", down=False)]
    if parent := pointers.dataset_named(walk.store, manifest["parent_dataset_id"]):
        links.append(_Link(_Key("dataset", parent), "parent of", down=False))
    if manifest["training_run_id"]:
        links.append(_Link(_Key("run", manifest["training_run_id"]), "source of", down=False))
    children = pointers.datasets_after(walk.store, "parent_dataset_id", (key, manifest["build_id"]), limit=MAX_NEXT)
    links += [_Link(_Key("dataset", child), "parent of", down=True) for child in children]
    trained = pointers.runs_on_dataset(walk.store, key, limit=MAX_NEXT)
    return links + [_Link(_Key("run", run.run_id), "trained", down=True) for run in trained]


def _around_run(walk: _Walk, run_id: str) -> list[_Link]:
    run = runs.get_run(walk.store, run_id)
    links = _from_model(run.spec.get("model"), "measured by" if run.kind == "evaluation" else "start of")
    if run.dataset_key:
        links.append(_Link(_Key("dataset", run.dataset_key), "trained", down=False))
    if eval_set := run.spec.get("eval_set"):
        links.append(_Link(_Key("eval_set", eval_set), "asked in", down=False))
    if _saved_files(walk, run):
        links.append(_Link(_Key("checkpoint", run_id), "saved", down=True))
    made = evaluations.list_evaluations(walk.store, limit=MAX_NEXT, chosen=EvaluationFilter(run_id=run_id))
    links += [_Link(_Key("evaluation", found.evaluation_id), "recorded", down=True) for found in made]
    frozen = pointers.datasets_after(walk.store, "training_run_id", (run_id,), limit=MAX_NEXT)
    return links + [_Link(_Key("dataset", key), "source of", down=True) for key in frozen]


def _around_checkpoint(walk: _Walk, run_id: str) -> list[_Link]:
    promoted = models.list_models(walk.store, limit=MAX_NEXT, run_id=run_id)
    return [
        _Link(_Key("run", run_id), "saved", down=False),
        *(_Link(_Key("model", model.model_id), "promoted to", down=True) for model in promoted),
        *_uses(walk, f"{RUN}{run_id}"),
    ]


def _around_model(walk: _Walk, model_id: str) -> list[_Link]:
    run_id = models.get_model(walk.store, model_id).run_id
    above = [_Link(_Key("checkpoint", run_id), "promoted to", down=False)] if run_id else []
    return above + _uses(walk, f"{MODEL}{model_id}")


def _around_evaluation(walk: _Walk, evaluation_id: str) -> list[_Link]:
    found = evaluations.get_evaluation(walk.store, evaluation_id)
    return [
        *_from_model(found.model, "measured by"),
        _Link(_Key("eval_set", found.eval_set), "asked in", down=False),
    ]


def _around_eval_set(walk: _Walk, name: str) -> list[_Link]:
    found = evaluations.list_evaluations(walk.store, limit=MAX_NEXT, chosen=EvaluationFilter(eval_set=name))
    return [_Link(_Key("evaluation", each.evaluation_id), "asked in", down=True) for each in found]


def _uses(walk: _Walk, reference: str) -> list[_Link]:
    """What a model was measured by and what it was the start of; a run that only measures is its evaluation."""
    measured = evaluations.list_evaluations(walk.store, limit=MAX_NEXT, chosen=EvaluationFilter(model=reference))
    started = [
        run for run in pointers.runs_from_model(walk.store, reference, limit=MAX_NEXT) if run.kind != "evaluation"
    ]
    return [
        *(_Link(_Key("evaluation", found.evaluation_id), "measured by", down=True) for found in measured),
        *(_Link(_Key("run", run.run_id), "start of", down=True) for run in started),
    ]


def _from_model(reference: str | None, verb: str) -> list[_Link]:
    """Up to the model that a reference names; a built-in or downloaded one has nothing above it."""
    for prefix, kind in _REFERENCES.items():
        if reference and reference.startswith(prefix):
            return [_Link(_Key(kind, reference.removeprefix(prefix)), verb, down=False)]
    return []


def _saved_files(walk: _Walk, run: StoredRun) -> Mapping[str, str]:
    """sha256 of each file of a run's final model; none before it has ended."""
    return read_run_manifest(walk.home / run.folder).get("files") or {}


_REFERENCES: Mapping[str, Kind] = {RUN: "checkpoint", MODEL: "model"}
_NODES = {
    "traces": _of_traces,
    "dataset": _of_dataset,
    "run": _of_run,
    "checkpoint": _of_checkpoint,
    "model": _of_model,
    "evaluation": _of_evaluation,
    "eval_set": _of_eval_set,
}
_LINKS = {
    "traces": _around_traces,
    "dataset": _around_dataset,
    "run": _around_run,
    "checkpoint": _around_checkpoint,
    "model": _around_model,
    "evaluation": _around_evaluation,
    "eval_set": _around_eval_set,
}
