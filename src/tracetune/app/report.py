"""Two evaluation files → a comparison, written as Markdown and as one HTML page beside it."""

from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.durable import write_durably
from tracetune.core.results import Comparison
from tracetune.evals.compare import compare
from tracetune.evals.records import read_result
from tracetune.reports.html import render_html
from tracetune.reports.markdown import render_markdown
from tracetune.reports.summary import summarize
from tracetune.reports.wording import VERDICT_MARKS, evidence, headline, left_out, outcome, p_text, points, power
from tracetune.tasks.evalset import read_evalset
from tracetune.tasks.grading import grade

# The words of a comparison are the same behind every door.
__all__ = ["evidence", "headline", "left_out", "outcome", "p_text", "points", "power"]


class Report(NamedTuple):
    """A comparison and where it was written."""

    comparison: Comparison
    markdown: Path
    html: Path

    @property
    def regressed(self) -> bool:
        """What a gate asks: did the model get significantly worse?"""
        return self.comparison.verdict == "regressed"


def report(
    before: Path, after: Path, output: Path, *, eval_set: Path | None = None, confidence: float = 0.95, seed: int = 0
) -> Report:
    """Compare two evaluation files; write `output` as Markdown and the page of the same name ending in .html.

    `eval_set` supplies expected answers that older files do not carry. `seed` is the bootstrap's. Raises
    InputError when the files cannot be read or paired, StorageError when the disk refuses.
    """
    problems = () if eval_set is None else read_evalset(eval_set)
    comparison = compare(
        read_result(before, grade=grade, problems=problems),
        read_result(after, grade=grade, problems=problems),
        confidence=confidence,
        seed=seed,
    )
    markdown = output.with_suffix(".md") if output.suffix in ("", ".html") else output
    html = markdown.with_suffix(".html")
    write_durably(markdown, render_markdown(comparison).encode("utf-8", "replace"))
    write_durably(html, render_html(comparison).encode("utf-8", "replace"))
    return Report(comparison, markdown, html)


def numbers(written: Report) -> dict[str, Any]:
    """The comparison as one JSON object, with the paths of its reports."""
    return {**summarize(written.comparison), "markdown": str(written.markdown), "html": str(written.html)}


def sentences(written: Report) -> tuple[str, ...]:
    """What a person reads on the terminal."""
    comparison = written.comparison
    return (
        f"{VERDICT_MARKS[comparison.verdict]} {headline(comparison)}",
        evidence(comparison),
        f"{len(comparison.fixed)} fixed, {len(comparison.broken)} broken. {power(comparison)}",
        f"report: {written.markdown}",
        f"page:   {written.html}",
    )
