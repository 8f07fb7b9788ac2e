"""The benchmark that a run ends with: the same keys in every training file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tracetune.config.check import Dial, Table
from tracetune.config.kinds import TEXT, Kind, one_of, optional, whole
from tracetune.core.errors import InputError

Suite = Literal["quick", "standard", "comprehensive"]
SUITES: tuple[Suite, ...] = get_args(Suite)
DEFAULT_SUITE: Suite = "standard"


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Without a suite and sets there is none. `datasets` are asked beside the suite, or alone where it is None.

    `compare` is the finished benchmark of another model; None measures the run's own base first. `max_tokens` is the
    longest answer.
    """

    suite: Suite | None = None
    datasets: tuple[str, ...] = ()
    compare: str | None = None
    max_tokens: int = 512

    @property
    def is_asked(self) -> bool:
        """Whether a run ends with one."""
        return self.suite is not None or bool(self.datasets)


def _read_names(value: Any) -> tuple[str, ...]:
    names = tuple(TEXT.read(name) for name in value) if isinstance(value, list | tuple) else None
    if names is None or len(set(names)) != len(names):
        raise ValueError(value)
    return names


_NAMES = Kind("a list of names, none twice", _read_names)
_SUITE = optional(one_of(*SUITES))
BENCHMARK_DIALS = (
    Dial(
        "benchmark.suite", "benchmark.suite", _SUITE, "what the run ends with, null for nothing (docs/experiments.md)"
    ),
    # A word alone is the suite.
    Dial("benchmark", "benchmark.suite", _SUITE),
    Dial("benchmark.datasets", "benchmark.datasets", _NAMES, "sets beside the suite's: shipped names or JSONL files"),
    Dial(
        "benchmark.compare",
        "benchmark.compare",
        optional(TEXT),
        "a finished benchmark to compare with, the file or its folder; null measures the base model too",
    ),
    Dial("benchmark.max_tokens", "benchmark.max_tokens", whole(1), "tokens of the longest answer"),
)
_TABLE = Table(BENCHMARK_DIALS, hint="see docs/experiments.md")


def make_benchmark(given: Mapping[str, Any]) -> BenchmarkSettings:
    """The settings from checked values by their field; other settings alone ask for the default suite."""
    unnamed = {"suite": DEFAULT_SUITE} if given and not {"suite", "datasets"} & given.keys() else {}
    return BenchmarkSettings(**unnamed, **given)


def load_benchmark(source: Mapping[str, Any]) -> BenchmarkSettings:
    """Check and type settings that stand alone. Raises InputError listing every mistake."""
    mistakes: list[str] = []
    settings = _TABLE.check({"benchmark": dict(source)}, "config", mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    return make_benchmark({target.partition(".")[2]: setting.value for target, setting in settings.items()})


def benchmark_mapping(settings: BenchmarkSettings) -> dict[str, Any]:
    """The settings as plain values that `BENCHMARK_DIALS` read back."""
    return {**asdict(settings), "datasets": list(settings.datasets)}
