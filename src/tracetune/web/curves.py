"""Which curves a run's page shows and how: titles, units and one sentence each on what to look for."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.web.draw import Plot, plot

NOT_CURVES = ("step", "epoch", "timestamp", "tokens", "targets")
PHASES = (
    ("rollout_seconds", "rollouts"),
    ("reward_seconds", "rewards"),
    ("reference_seconds", "reference"),
    ("update_seconds", "update"),
)
MAX_DRAWN = 400


class Panel(NamedTuple):
    """One chart. `series` are metrics with the name each has in the legend; `band` is a spread about the first."""

    title: str
    hint: str
    series: tuple[tuple[str, str], ...]
    band: str | None = None


class Drawn(NamedTuple):
    """A panel with its picture, as the server draws it for readers without scripts and for print."""

    panel: Panel
    plot: Plot
    newest: list[tuple[str, float | None]]


class Overlay(NamedTuple):
    """One metric of several runs; `ends` has each run's last value."""

    metric: str
    plot: Plot
    ends: list[tuple[str, float | None]]


PANELS = (
    Panel("Loss", "Nats a trained token.", (("loss", "training"), ("eval_loss", "held out"))),
    Panel(
        "Reward",
        "Mean over the step's completions; the band is one standard deviation.",
        (("reward_mean", "mean"),),
        band="reward_std",
    ),
    Panel(
        "Validation",
        "Greedy answers to problems that are never trained on.",
        (("validation_accuracy", "right"), ("validation_partial", "within 10 %"), ("validation_format", "in form")),
    ),
    Panel("KL to the reference", "Nats a token; a jump means the policy has left its base.", (("kl", "KL"),)),
    Panel(
        "Completion length",
        "Tokens; a climb to the limit is often a model that no longer stops.",
        (("completion_length_mean", "mean"), ("validation_length_mean", "validation")),
    ),
    Panel(
        "Shares of completions",
        "Cut at the limit, unlike their siblings, and groups without a signal.",
        (
            ("length_clipped_share", "cut at the limit"),
            ("unique_share", "unlike siblings"),
            ("equal_group_share", "equal groups"),
            ("clip_share", "ratio clipped"),
        ),
    ),
    Panel(
        "Trouble",
        "Completions that could not be rewarded, and answers that the checker ran out of time on.",
        (("error_share", "errors"), ("timeout_share", "timeouts")),
    ),
    Panel("Entropy", "Nats a token; near zero the policy has stopped exploring.", (("entropy", "entropy"),)),
    Panel("Gradient norm", "Before clipping.", (("grad_norm", "norm"),)),
    Panel("Learning rate", "", (("learning_rate", "rate"),)),
    Panel("Speed", "Tokens a second.", (("tokens_per_second", "tokens/s"),)),
    Panel(
        "Sampler against trainer",
        "Nats between the two's log-probabilities of one token; should stay at rounding.",
        (("sampler_gap_max", "largest"), ("sampler_gap_mean", "mean")),
    ),
)


def panels(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Panel]:
    """The panels that have a number to show, what matters most for the kind first, unknown metrics last."""
    names = list(dict.fromkeys(name for row in rows for name in row if _is_curve(name, row[name])))
    known = [_only(panel, names) for panel in _ordered(kind)]
    parts = tuple((name, name.removeprefix("reward/")) for name in names if name.startswith("reward/"))
    if parts:
        known.insert(1, Panel("Rewards by part", "What each reward function gave, on average.", parts))
    told = {name for panel in PANELS for name, _ in panel.series} | {"reward_std", *(name for name, _ in PHASES)}
    rest = [name for name in names if name not in told and not name.startswith(("reward/", "reward_std/"))]
    return [panel for panel in known if panel.series] + [Panel(name, "", ((name, name),)) for name in rest]


def draw_panels(rows: Sequence[Mapping[str, Any]], kind: str) -> list[Drawn]:
    """Every panel drawn from the rows; a long run is thinned, its ends kept."""
    step = max(1, -(-len(rows) // MAX_DRAWN))
    kept = [row for place, row in enumerate(rows) if place % step == 0 or place == len(rows) - 1]
    newest = {name: value for row in rows for name, value in row.items() if value is not None}
    found = []
    for panel in panels(rows, kind):
        series = [[(row["step"], row.get(name)) for row in kept] for name, _ in panel.series]
        ends = [(label, newest.get(name)) for name, label in panel.series]
        found.append(Drawn(panel, plot(series), ends))
    return found


def draw_overlays(series: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], ids: Sequence[str]) -> list[Overlay]:
    """One chart per metric with a line per run, in the order of `ids`; metrics the pages explain come first."""
    hints = {name: (panel.title, panel.hint) for panel in PANELS for name, _ in panel.series}
    names = sorted(
        (name for name in series if _is_curve(name, 0) and not name.startswith("reward_std/")),
        key=lambda name: (name not in hints, list(hints).index(name) if name in hints else 0, name),
    )
    found = []
    for name in names:
        curves = [list(series[name].get(run_id, ())) for run_id in ids]
        ends = [(run_id, points[-1][1] if points else None) for run_id, points in zip(ids, curves, strict=True)]
        found.append(Overlay(name, plot(curves), ends))
    return found


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every metric's name, in the order in which they were first logged."""
    return list(dict.fromkeys(name for row in rows for name in row))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line a step; text that a spreadsheet would run as a formula gets a quote before it.

    >>> to_csv([{"step": 1, "loss": 2.5}, {"step": 2}])
    'step,loss\\r\\n1,2.5\\r\\n2,\\r\\n'
    """
    names = columns(rows)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in names])
    writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
    return out.getvalue()


def _cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value


def phase_shares(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Where the time of the newest ten steps went: name, seconds a step, share; empty where it was not measured."""
    recent = rows[-10:]
    seconds = [(label, _mean(row.get(name) for row in recent)) for name, label in PHASES]
    total = sum(value for _, value in seconds)
    return [(label, value, value / total) for label, value in seconds] if total > 0 else []


def _ordered(kind: str) -> list[Panel]:
    """GRPO's loss says little, so it stands last; for SFT it is what one came for."""
    return [*PANELS[1:], PANELS[0]] if kind == "grpo" else list(PANELS)


def _only(panel: Panel, names: Sequence[str]) -> Panel:
    return panel._replace(series=tuple(pair for pair in panel.series if pair[0] in names))


def _is_curve(name: str, value: Any) -> bool:
    return name not in NOT_CURVES and isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
