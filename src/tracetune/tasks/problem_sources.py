"""Where the problems of reinforcement learning come from: a built-in task, a JSONL file or a dataset hub.

Train and test share no question, whatever the source; what is left out is counted by reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from tracetune.config.grpo_schema import GrpoDataSettings
from tracetune.core.errors import InputError
from tracetune.core.labels import Wanted, labels_of
from tracetune.core.values import Problem
from tracetune.data.dataset_files import read_json_rows
from tracetune.data.hub_rows import huggingface_rows, kaggle_rows, tfds_rows
from tracetune.tasks.problem_split import LoadedProblems, hash_share, keep_first, split_problems
from tracetune.tasks.question_rows import question_hash, row_to_problem
from tracetune.tasks.registry import get_task, task_options

Kind = Literal["builtin", "jsonl", "huggingface", "tfds", "kaggle"]

NUM_BUILTIN_TRAIN = 4096
NUM_BUILTIN_TEST = 512
# Where a source has no test part of its own, one question in ten is never trained on.
TRAIN_SHARE = 0.9
# So many draws without a new question mean that there is none left.
DRY_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class ProblemSource:
    """What to load. Raises InputError for values that name no source.

    `name` is a task, a file, a repository (`owner/name`, or `owner/name@revision`), a TFDS name or a Kaggle
    handle; a folder stands for a local copy. `test` names the part to test on: another file of `jsonl`,
    another split of a hub; None tests on what `train_fraction` leaves. `columns` names the question's and the
    answer's, None means the usual names. `options` are the built-in task's and `seed` is its seed. None
    problems means all there are, of a built-in task 4096 and 512. `wanted` chooses by grade and topic, on both sides.
    """

    kind: Kind
    name: str
    subset: str | None = None
    split: str = "train"
    test: str | None = None
    columns: tuple[str, str] | None = None
    train_fraction: float = 1.0
    num_train: int | None = None
    num_test: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"data source: kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if not self.name:
            raise InputError(f"data source {self.kind}: has no name; give a task, a file or a repository")
        if not 0.0 <= self.train_fraction <= 1.0:
            raise InputError(f"train_fraction must be from 0 to 1, got {self.train_fraction!r}")
        if "split" in self.options:
            raise InputError("options: split cannot be set, train and test are drawn apart; leave it out")
        for option, count in (("num_train", self.num_train), ("num_test", self.num_test)):
            if count is not None and count < 0:
                raise InputError(f"{option} must be at least 0, or null for all, got {count!r}")


# GSM8K on each hub: its name, and the subset that holds the plain questions.
GSM8K: dict[Kind, tuple[str, str | None]] = {
    "huggingface": ("openai/gsm8k", "main"),
    "tfds": ("gsm8k", None),
    "kaggle": ("thedevastator/grade-school-math-8k-q-a", "main"),
}


def source_of(settings: GrpoDataSettings, *, num_train: int | None, num_test: int, seed: int) -> ProblemSource:
    """The source that a configuration names, with `num_test` problems to validate on.

    A hub without `data_path` is GSM8K with its own test split. Elsewhere one question in ten is held out by
    hash, unless `num_test` is 0; what of it is not validated on does not train either.
    `data_path` may name a subset after a colon: `openai/gsm8k:socratic`.
    """
    kind = settings.data_source
    counts: dict[str, Any] = {"num_train": num_train, "num_test": num_test, "seed": seed}
    counts["wanted"] = Wanted(settings.grades, settings.topics)
    if kind == "builtin":
        return ProblemSource(kind=kind, name=settings.task or "arithmetic", **counts)
    share = TRAIN_SHARE if num_test and settings.eval_path is None else 1.0
    if kind == "jsonl":
        name, test = settings.data_path or "", settings.eval_path if num_test else None
        return ProblemSource(kind=kind, name=name, test=test, train_fraction=share, **counts)
    split = settings.split or "train"
    if settings.data_path in (None, GSM8K[kind][0]):
        name, subset = GSM8K[kind]
        return ProblemSource(kind=kind, name=name, subset=subset, split=split, test="test", **counts)
    name, _, subset = settings.data_path.partition(":")
    if kind == "tfds" or Path(settings.data_path).expanduser().is_dir():
        name, subset = settings.data_path, ""  # in TFDS a colon stands before a version
    return ProblemSource(kind=kind, name=name, subset=subset or None, split=split, train_fraction=share, **counts)


def load_problems(source: ProblemSource) -> LoadedProblems:
    """The problems of a source, in its order.

    Raises NotFound for data that is not there, Unavailable when a hub or its library is not at hand,
    InputError (`file:line: …`) for a bad row and when nothing is left to train on.
    """
    loaded = _drawn(source) if source.kind == "builtin" else _read(source)
    if not loaded.train and source.train_fraction > 0 and source.num_train != 0:
        left_out = ", ".join(f"{count} {reason}" for reason, count in loaded.left_out.items())
        raise InputError(
            f"{source.name}: has no problem to train on, got {len(loaded.test)} to test on"
            f"{left_out and f', left out {left_out}'}; raise train_fraction, or give more data"
        )
    return loaded


def _read(source: ProblemSource) -> LoadedProblems:
    main = source.name if source.kind == "jsonl" else source.split
    others: Counter[str] = Counter()
    test = None if source.test is None else list(_chosen(source, source.test, others))
    loaded = split_problems(_chosen(source, main, others), source.train_fraction, test)
    return keep_first(loaded._replace(left_out={**loaded.left_out, **others}), source.num_train, source.num_test)


def _chosen(source: ProblemSource, part: str, others: Counter[str]) -> Iterator[Problem]:
    """The problems of one file or split that are wanted; the others are counted. Raises InputError when there is none
    that is."""
    is_empty = True
    for problem in _problems(source, part):
        if source.wanted.takes(labels_of(problem.meta)):
            is_empty = False
            yield problem
        else:
            others[f"not of {source.wanted.told()}"] += 1
    if is_empty:
        name = part if source.kind == "jsonl" else source.name
        raise InputError(
            f"{name}: has no problem of {source.wanted.told()}; choose other grades or topics, or tag the problems"
        )


def _problems(source: ProblemSource, part: str) -> Iterator[Problem]:
    """The problems of one file or split; ids are unique."""
    seen: dict[str, tuple[str, str]] = {}
    for where, row in _rows(source, part):
        problem = row_to_problem(_renamed(row, source.columns, where), where)
        key = question_hash(problem.prompt)
        first, its_key = seen.setdefault(problem.id, (where, key))
        if key != its_key:
            raise InputError(f"{where}: id {problem.id!r} is already that of {first}; ids must be unique")
        yield problem
    if not seen:
        raise InputError(f"{source.name}: {part} holds no rows; give data with one problem a row")


def _rows(source: ProblemSource, part: str) -> Iterator[tuple[str, Any]]:
    """Rows with their place; a hub's library is only loaded when it is asked."""
    if source.kind == "jsonl":
        return read_json_rows(Path(part).expanduser())
    read = {"huggingface": huggingface_rows, "tfds": tfds_rows, "kaggle": kaggle_rows}[source.kind]
    return read(source.name, source.subset, part)


def _renamed(row: Any, columns: tuple[str, str] | None, where: str) -> Any:
    """The row with its question and answer under the names that are understood."""
    if columns is None or not isinstance(row, Mapping):
        return row
    missing = [name for name in columns if name not in row]
    if missing:
        raise InputError(f"{where}: has no column {missing[0]!r}, its columns are {', '.join(row)}")
    question, answer = columns
    rest = {key: value for key, value in row.items() if key not in columns}
    return {"question": row[question], "answer": row[answer], "meta": rest}


def _drawn(source: ProblemSource) -> LoadedProblems:
    """Distinct problems of a built-in task; its training stream never holds a test question."""
    num_train = NUM_BUILTIN_TRAIN if source.num_train is None else source.num_train
    num_test = NUM_BUILTIN_TEST if source.num_test is None else source.num_test
    train = list(_distinct_draws(source, "train", num_train))
    test = list(_distinct_draws(source, "test", num_test))
    return split_problems(train, source.train_fraction, test)


def _distinct_draws(source: ProblemSource, side: Literal["train", "test"], count: int) -> Iterator[Problem]:
    """Up to `count` questions of one side; problem i of the seed is the same however many are asked for."""
    has_split = "split" in task_options(source.name)
    task = get_task(source.name, **source.options, **({"split": side} if has_split else {}))
    return islice(_new_questions(task.problems(1 << 31, source.seed), None if has_split else side), count)


def _new_questions(problems: Iterator[Problem], side: str | None) -> Iterator[Problem]:
    seen: set[str] = set()
    num_dry = 0
    while num_dry < DRY_DRAWS:
        problem = next(problems)
        key = question_hash(problem.prompt)
        num_dry = num_dry + 1 if key in seen else 0
        if key not in seen and (side is None or (hash_share(key) < TRAIN_SHARE) == (side == "train")):
            yield problem
        seen.add(key)
