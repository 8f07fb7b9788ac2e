"""Tagging as every door does it: one problem, a file into a file, or a labelled file to see how good the tags are.

A file streams through in bounded memory, in as many processes as are asked for; the output is there whole or not
at all. Rows of a test split that would end in a training file are told loudly.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.processes import map_batches
from tracetune.core.durable import write_chunks_durably
from tracetune.core.errors import InputError
from tracetune.data.records import BATCH_ROWS, Record, batch_records, read_records
from tracetune.data.tag_rows import TAGS, TopicScore, problem_text, row_object, score_topics, tag_record
from tracetune.data.tagger import MIN_CONFIDENCE, Tagger
from tracetune.data.taxonomy import load_taxonomy

__all__ = ["TagReport", "TagSettings", "TopicScore", "evaluate_tags", "tag_file", "tag_problem"]

BATCH_BYTES = 4 * 2**20
# Words of a file's name that say: this is for measuring, not for training.
MEASURING = frozenset(
    (
        *("test", "tests", "testing", "testset", "eval", "evals", "evaluation", "evalset", "evalsets", "val", "valid"),
        *("validation", "dev", "heldout", "holdout", "benchmark"),
    )
)


class TagSettings(NamedTuple):
    """`taxonomy` is a TOML file, None for the one that is shipped; with `grade` only its topics are told."""

    taxonomy: Path | None = None
    grade: int | None = None
    min_confidence: float = MIN_CONFIDENCE


DEFAULTS = TagSettings()


class TagReport(NamedTuple):
    """What became of a file: `untagged` rows are about no known topic, `kept` had topics of their own, which stay."""

    num_rows: int
    untagged: int
    kept: int
    topics: Counter[str]
    warnings: tuple[str, ...]


def tag_problem(question: str, settings: TagSettings = DEFAULTS) -> dict[str, Any]:
    """The row of one problem: its question, `topic_tags` and `tagging_metadata`. Raises InputError, NotFound."""
    tags = _tagger(settings).tag(problem_text({"question": question}, "tag_problem"))
    return {"question": question, TAGS: list(tags.confidence), "tagging_metadata": tags.to_json()}


def tag_file(
    source: Path,
    output: Path,
    settings: TagSettings = DEFAULTS,
    *,
    workers: int = 1,
    warn: Callable[[str], None] = lambda _: None,
) -> TagReport:
    """Write every row of `source` with its tags to `output`, JSONL; `warn` hears of test rows at once.

    Raises NotFound, and InputError naming the bad line, with nothing written.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    watch = _SplitWatch(source, output, warn)
    topics: Counter[str] = Counter()
    totals = [0, 0, 0]

    def lines() -> Iterator[bytes]:
        for batch in _tagged(source, settings, workers):
            topics.update(batch.topics)
            watch.see(batch)
            for place, count in enumerate((batch.num_rows, batch.untagged, batch.kept)):
                totals[place] += count
            yield batch.lines

    write_chunks_durably(output, lines())
    watch.finish()
    return TagReport(*totals, topics=topics, warnings=tuple(watch.warnings))


def evaluate_tags(labelled: Path, settings: TagSettings = DEFAULTS) -> list[TopicScore]:
    """Compare tags with the labels that a file has under `topic_tags`, topic by topic; the last row is all together."""
    return score_topics(_labels_and_tags(labelled, _tagger(settings)))


def _labels_and_tags(labelled: Path, tagger: Tagger) -> Iterator[tuple[list[str], Iterable[str]]]:
    for record in read_records(labelled):
        where = f"{labelled}:{record.line}"
        row = row_object(record, where)
        labels = row.get(TAGS)
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{where}: {TAGS} must be a list of topics to compare with, got {labels!r:.80}")
        yield labels, tagger.tag(problem_text(row, where)).confidence


def _tagger(settings: TagSettings) -> Tagger:
    """Made once for all calls with these settings, for as long as the taxonomy's file stays as it is."""
    path = settings.taxonomy
    return _made_tagger(settings, path.stat().st_mtime_ns if path is not None and path.is_file() else 0)


@lru_cache(maxsize=4)
def _made_tagger(settings: TagSettings, _changed_at: int) -> Tagger:
    return Tagger(load_taxonomy(settings.taxonomy), grade=settings.grade, min_confidence=settings.min_confidence)


def _tagged(source: Path, settings: TagSettings, workers: int) -> Iterator["_Tagged"]:
    _tagger(settings)  # a mistake in the settings is told before any process begins
    batches = batch_records(read_records(source), BATCH_BYTES)
    first = next(batches, None)
    if first is None:
        raise InputError(f"{source}: has no rows; write one JSON object a line")
    processes = workers if workers > 1 and len(first) == BATCH_ROWS else 0
    work = partial(_tag_batch, source=str(source), settings=settings)
    yield from map_batches(work, chain((first,), batches), processes, source)


class _Tagged(NamedTuple):
    """A batch's lines and counts; `splits` are the rows' own by name, each with its first line. Small to send."""

    lines: bytes
    num_rows: int
    untagged: int
    kept: int
    topics: Counter[str]
    splits: dict[str, tuple[int, int]]


def _tag_batch(records: list[Record], *, source: str, settings: TagSettings) -> _Tagged:
    tagger = _tagger(settings)
    rows = [tag_record(record, f"{source}:{record.line}", tagger) for record in records]
    splits: dict[str, tuple[int, int]] = {}
    for row, record in zip(rows, records, strict=True):
        if row.split is not None:
            count, line = splits.get(row.split, (0, record.line))
            splits[row.split] = (count + 1, line)
    return _Tagged(
        lines=b"".join([row.line + b"\n" for row in rows]),
        num_rows=len(rows),
        untagged=sum(not row.tags.confidence for row in rows),
        kept=sum(row.kept for row in rows),
        topics=Counter(topic for row in rows for topic in row.tags.confidence),
        splits=splits,
    )


class _SplitWatch:
    """Tells when what is for measuring is about to be trained on.

    A file is for measuring when its name or its folder's says so; the output is for training unless its own does.
    """

    def __init__(self, source: Path, output: Path, warn: Callable[[str], None]) -> None:
        self.warnings: list[str] = []
        self._warn, self._source, self._output = warn, source, output
        self._trains = not _measures(output)
        self._num_rows, self._first_line = 0, 0
        if self._trains and _measures(source):
            self._tell(f"{source} looks like a test split")

    def see(self, batch: _Tagged) -> None:
        """Take note of what the rows' own `split` says."""
        for name, (count, line) in batch.splits.items():
            if self._trains and _says_measuring(name):
                self._num_rows += count
                self._first_line = min(self._first_line or line, line)

    def finish(self) -> None:
        """Tell of the rows that were seen."""
        if self._num_rows:
            rows = "a row" if self._num_rows == 1 else f"each of {self._num_rows} rows from here on"
            self._tell(f"{self._source}:{self._first_line}: {rows} says that it is of a test split")

    def _tell(self, what: str) -> None:
        warning = (
            f"{what}, but {self._output} is not named as one; a model trained on it can no longer be measured by it; "
            "tag the training split, or name the output test or eval"
        )
        self.warnings.append(warning)
        self._warn(warning)


def _measures(path: Path) -> bool:
    return _says_measuring(path.stem) or path.parent.name.lower() in MEASURING


def _says_measuring(name: str) -> bool:
    words = re.split(r"[^a-z]+", name.lower())
    return not MEASURING.isdisjoint(words) or ("held", "out") in pairwise(words)
