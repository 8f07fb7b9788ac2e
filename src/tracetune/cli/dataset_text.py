"""Datasets in words: the lines and coloured tokens that `tracetune dataset` prints.

Text of traces is shown with control characters escaped: a trace cannot move the cursor or fake a line.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from tracetune.app.datasets import Bin, DatasetRecord, Manifest, RowDiff, TokenView
    from tracetune.core.trace import StoredTrace

BAR_WIDTH = 40
EXCERPT_CHARS = 160
TRAINED, CONTROL = "black on green", "magenta"
TRAINED_MARKS, CONTROL_MARKS = ("⟦", "⟧"), ("‹", "›")


def build_lines(manifest: "Manifest", contamination_now: Any) -> list[str]:
    """What a build found, dropped and froze; the verdict of today where eval sets came after the build."""
    exact, near = manifest.dedup["exact"], manifest.dedup["near"]
    lines = [
        f"dataset        {manifest.dataset_key}",
        f"content hash   {manifest.content_hash}",
        f"rows           {manifest.trace_count:,}",
        f"duplicates     {exact['dropped']:,} exact, {near['dropped']:,} near dropped",
        f"contamination  {contamination_text(manifest.contamination)}",
    ]
    if contamination_now is not None:
        lines.append(f"     today     {contamination_text(contamination_now)}")
    return lines


def contamination_text(verdict: Any) -> str:
    """The verdict in one line."""
    if verdict["verdict"] == "unchecked":
        return "not checked: no eval set is registered (--eval-set FILE registers one)"
    names = ", ".join(
        f"{item['name']} ({item['problems_checked']:,} problems"
        + (f", shown by {item['contaminated_count']:,} rows)" if item["contaminated_count"] else ")")
        for item in verdict["eval_sets"]
    )
    dropped = f", {verdict['rows_dropped']:,} rows dropped" if verdict["rows_dropped"] else ""
    return f"{verdict['verdict']} against {names}{dropped}"


def list_lines(records: Sequence["DatasetRecord"]) -> list[str]:
    """One line a dataset."""
    if not records:
        return ["no datasets yet; `tracetune dataset build NAME VERSION` makes one"]
    width = max(len(record.dataset_key) for record in records)
    return [
        f"{record.dataset_key:<{width}}  {record.trace_count:>9,} rows  {record.content_hash[:12]}  {record.created_at}"
        for record in records
    ]


def show_lines(manifest: "Manifest", bins: Sequence["Bin"], contamination_now: Any) -> list[str]:
    """The manifest's facts and the lengths of the rows as bars."""
    stats = manifest.stats
    seed = f", seed {manifest.seed}" if manifest.seed is not None else ""
    facts = [
        *build_lines(manifest, contamination_now),
        f"build          {manifest.build_id}, {manifest.created_at}",
        f"selection      {manifest.selection_strategy}{seed}, at most {manifest.limit:,}; filters {manifest.filters}",
        f"steps          {stats.avg_step_count:.1f} on average, {stats.min_step_count} to {stats.max_step_count}",
        f"characters     {stats.avg_total_chars:,.0f} on average; rows by length:",
    ]
    return facts + [f"  {line}" for line in _bars(bins)]


def _bars(bins: Sequence["Bin"]) -> list[str]:
    most = max(item.num_rows for item in bins)
    width = len(f"{bins[-1].high:,}")
    bars = ["█" * -(-item.num_rows * BAR_WIDTH // most) for item in bins]
    return [
        f"{item.low:>{width},} to {item.high - 1:>{width},}  {bar} {item.num_rows:,}"
        for item, bar in zip(bins, bars, strict=True)
    ]


def diff_lines(found: "RowDiff", num_examples: int) -> list[str]:
    """Counts, then the first rows of each kind."""
    from tracetune.app.dataset_views import diff_counts

    counts, diff, rows = diff_counts(found), found.diff, found.examples
    lines = [
        f"{found.before.dataset_key} ({found.before.trace_count:,} rows) → "
        f"{found.after.dataset_key} ({found.after.trace_count:,} rows)",
        ", ".join(f"{counts[name]:,} {name}" for name in ("added", "removed", "changed", "unchanged")),
    ]
    if diff.reordered:
        lines.append("the unchanged rows stand in another order")
    lines += [f"+ {_excerpt(rows[trace_id])}" for trace_id in diff.added[:num_examples]]
    lines += [f"- {_excerpt(rows[trace_id])}" for trace_id in diff.removed[:num_examples]]
    for change in diff.changed[:num_examples]:
        lines += [f"~ {_excerpt(rows[change.before])}", f"→ {_excerpt(rows[change.after])}"]
    return lines


def print_tokens(views: Sequence["TokenView"]) -> None:
    """Rows as coloured tokens; without colour, marks stand around what is trained."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    marks = console.color_system is None or console.no_color
    console.print(_legend(marks=marks))
    for view in views:
        trained = sum(len(span.tokens) for span in view.spans if span.trained)
        total = sum(len(span.tokens) for span in view.spans)
        console.print(f"\n{view.trace_id}: {total} tokens, {trained} trained", markup=False)
        console.print(_coloured(view, marks=marks))


def _legend(*, marks: bool) -> "Text":
    from rich.text import Text

    if marks:
        (opens, closes), (left, right) = TRAINED_MARKS, CONTROL_MARKS
        return Text(f"{opens}trained: the loss counts these tokens{closes}  {left}control token{right}  read only")
    return Text.assemble(
        (" trained: the loss counts these tokens ", TRAINED), "  ", ("control token", CONTROL), "  read only"
    )


def _coloured(view: "TokenView", *, marks: bool) -> "Text":
    from rich.text import Text

    text = Text()
    for trained, run in groupby(view.spans, key=lambda span: span.trained):
        opens, closes = TRAINED_MARKS if marks and trained else ("", "")
        text.append(opens)
        for span in run:
            left, right = CONTROL_MARKS if marks and span.control else ("", "")
            style = " ".join(name for name, wanted in ((TRAINED, trained), ("bold", span.control)) if wanted)
            if span.control and not trained:
                style = CONTROL
            text.append(left + printable(span.text).replace("\n", "↵\n") + right, None if marks else style)
        text.append(closes)
    return text


def printable(text: str) -> str:
    """The text with control characters other than the newline written as escapes."""
    return "".join(
        character if character == "\n" or character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _excerpt(row: "StoredTrace") -> str:
    words = f"{row.trace.prompt} ⇒ {row.trace.final_answer}"
    short = words if len(words) <= EXCERPT_CHARS else f"{words[:EXCERPT_CHARS]}…"
    return f"{row.id}  {printable(' '.join(short.split()))}"
