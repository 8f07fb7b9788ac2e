"""More than two evaluation files in order, base → SFT → GRPO → one report as Markdown and as an HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.durable import write_durably
from tracetune.core.results import Stages
from tracetune.evals.records import read_result
from tracetune.evals.stages import compare_stages
from tracetune.reports.stage_wording import change_sentence, last_power, stages_headline
from tracetune.reports.stages_html import render_stages_html
from tracetune.reports.stages_markdown import render_stages_markdown
from tracetune.reports.summary import summarize_stages
from tracetune.reports.wording import VERDICT_MARKS
from tracetune.tasks.evalset import read_evalset
from tracetune.tasks.grading import grade


class StagesReport(NamedTuple):
    """A comparison of stages and where it was written."""

    stages: Stages
    markdown: Path
    html: Path

    @property
    def regressed(self) -> bool:
        """What a gate asks of the last stage: is it significantly worse than the one before, or than the first?"""
        return "regressed" in (self.stages.steps[-1].verdict, self.stages.whole.verdict)


def report_stages(
    files: Sequence[Path],
    output: Path,
    *,
    names: Sequence[str] = (),
    eval_set: Path | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> StagesReport:
    """Compare evaluations in order; write `output` as Markdown and the page of the same name ending in .html.

    Without `names` the stages are called as their files, `eval_` left off. Raises as `report` does.
    """
    problems = () if eval_set is None else read_evalset(eval_set)
    results = [read_result(path, grade=grade, problems=problems) for path in files]
    called = names or [path.stem.removeprefix("eval_") for path in files]
    stages = compare_stages(results, called, confidence=confidence, seed=seed)
    markdown = output.with_suffix(".md") if output.suffix in ("", ".html") else output
    html = markdown.with_suffix(".html")
    write_durably(markdown, render_stages_markdown(stages).encode("utf-8", "replace"))
    write_durably(html, render_stages_html(stages).encode("utf-8", "replace"))
    return StagesReport(stages, markdown, html)


def stage_numbers(written: StagesReport) -> dict[str, Any]:
    """The comparison as one JSON object, with the paths of its reports."""
    return {**summarize_stages(written.stages), "markdown": str(written.markdown), "html": str(written.html)}


def stage_sentences(written: StagesReport) -> tuple[str, ...]:
    """What a person reads on the terminal."""
    stages = written.stages
    return (
        f"{VERDICT_MARKS[stages.whole.verdict]} {stages_headline(stages)}",
        *(change_sentence(stages, change) for change in stages.changes),
        last_power(stages),
        f"report: {written.markdown}",
        f"page:   {written.html}",
    )
