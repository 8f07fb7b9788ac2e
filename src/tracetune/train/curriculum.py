"""Easier problems first: stages of prompts, and when one gives way to the next.

A stage is left when enough of the completions of its last prompts were right, or when its steps are up; earlier stages
keep a share of the prompts. What comes next depends on the course and the seed alone, so a course that is saved with a
checkpoint goes on exactly.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.config.grpo_schema import CurriculumSettings
from tracetune.core.errors import InputError
from tracetune.core.labels import grade_order, labels_of
from tracetune.core.values import Problem
from tracetune.tasks.grading import grade
from tracetune.tasks.reward_loading import ANSWER_VERIFIERS
from tracetune.train.prompts import Prompt, PromptStream
from tracetune.train.rollout import Rollout

_DIFFICULTIES = ("beginner", "easy", "intermediate", "medium", "advanced", "hard", "expert")
# A fifth of five prompts is 1.0000000000000002 in binary.
_ROUNDING = 1e-9


class Stage(NamedTuple):
    """The prompts of one grade, difficulty or topic."""

    name: str
    prompts: tuple[Prompt, ...]


class Course(NamedTuple):
    """Where a run stands: `stage` counts from 0, and the rest from its beginning. `fresh` of its prompts and `reviewed`
    of earlier ones are behind; `passes` has the share of right completions of its last prompts, the oldest first."""

    stage: int = 0
    steps: int = 0
    fresh: int = 0
    reviewed: int = 0
    passes: tuple[float, ...] = ()

    @classmethod
    def restored(cls, saved: Sequence[Any]) -> "Course":
        """The course that JSON kept as a list."""
        *counts, passes = saved
        return cls(*counts, passes=tuple(passes))


class Draw(NamedTuple):
    """The next prompts, which of them are of the stage itself, and the course behind them, None without stages."""

    prompts: list[Prompt]
    is_fresh: list[bool]
    course: Course | None


class Turn(NamedTuple):
    """The course after a batch, None without stages, and what there is to say about it."""

    course: Course | None
    told: str | None = None


class Curriculum:
    """Stages in order, and the settings that move a run through them."""

    def __init__(self, stages: Sequence[Stage], settings: CurriculumSettings, *, seed: int) -> None:
        self.stages, self.settings, self._seed = tuple(stages), settings, seed
        self._fresh = [PromptStream(stage.prompts, seed=seed) for stage in stages]
        self._reviews: dict[int, PromptStream] = {}

    def draw(self, course: Course, count: int) -> Draw:
        """The next prompts; those of earlier stages are spread evenly among them."""
        draw = Draw([], [], course)
        for _ in range(count):
            stage, behind = course.stage, course.fresh + course.reviewed
            share = self.settings.review if stage else 0.0
            if math.floor((behind + 1) * share + _ROUNDING) > math.floor(behind * share + _ROUNDING):
                draw.prompts.append(self._review(stage)[course.reviewed])
                draw.is_fresh.append(False)
                course = course._replace(reviewed=course.reviewed + 1)
            else:
                draw.prompts.append(self._fresh[stage][course.fresh])
                draw.is_fresh.append(True)
                course = course._replace(fresh=course.fresh + 1)
        return draw._replace(course=course)

    def measured(self, course: Course, groups: Sequence[Sequence[Rollout]]) -> Course:
        """The course with the share of right completions of these prompts of its stage; one that could not be judged
        counts nowhere."""
        passes = (*course.passes, *(share for group in groups if (share := pass_share(group)) is not None))
        return course._replace(passes=passes[-self.settings.window :])

    def turned(self, course: Course, *, num_steps: int) -> Turn:
        """The course after a batch that was worth so many steps: on its stage, or at the beginning of the next."""
        course, limit = course._replace(steps=course.steps + num_steps), self.settings.max_steps_per_stage
        if course.stage + 1 == len(self.stages):
            return Turn(course)
        rate = _mean(course.passes)
        is_passed = len(course.passes) == self.settings.window and rate >= self.settings.promote_at - _ROUNDING
        if not is_passed and (limit is None or course.steps < limit):
            return Turn(course)
        how = "passed" if is_passed else "its steps are up"
        left, stage = self.stages[course.stage], self.stages[course.stage + 1]
        return Turn(
            Course(stage=course.stage + 1),
            f"curriculum: {left.name} is left after {course.steps} steps, {how}: {rate:.0%} right over the last "
            f"{len(course.passes)} prompts; {stage.name} begins, {self._place(course.stage + 1)}",
        )

    def metrics(self, course: Course) -> dict[str, float]:
        """Fields of a metrics line: the stage, counted from 1, and the share of right completions over its window."""
        return {"curriculum_stage": float(course.stage + 1), "curriculum_pass_rate": _mean(course.passes)}

    def told(self) -> str:
        """All stages in one line."""
        sizes = ", ".join(f"{stage.name} ({len(stage.prompts)})" for stage in self.stages)
        return f"curriculum by {self.settings.by}: {sizes}"

    def _review(self, stage: int) -> PromptStream:
        """The prompts of all stages before this one, put together when they are first needed."""
        if stage not in self._reviews:
            before = [prompt for earlier in self.stages[:stage] for prompt in earlier.prompts]
            self._reviews = {stage: PromptStream(before, seed=self._seed)}
        return self._reviews[stage]

    def _place(self, stage: int) -> str:
        return f"stage {stage + 1} of {len(self.stages)} with {len(self.stages[stage].prompts)} problems"


def make_curriculum(prompts: Sequence[Prompt], settings: CurriculumSettings, *, seed: int) -> Curriculum:
    """The stages of prompts by their labels: one of several topics belongs to the last of its stages, one without a
    label to the last of all.

    Raises InputError for labels that the order lacks, that have no natural order, and for less than two stages.
    """
    labels = [_labels(prompt.problem, settings.by or "") for prompt in prompts]
    order = settings.order or _natural(Counter(name for names in labels for name in names), settings.by or "")
    places = {name: place for place, name in enumerate(order)}
    _check_known(labels, places)
    stages: list[list[Prompt]] = [[] for _ in order]
    unlabelled: list[Prompt] = []
    for prompt, names in zip(prompts, labels, strict=True):
        (stages[max(places[name] for name in names if name in places)] if names else unlabelled).append(prompt)
    # An order may serve several files, so a name without problems is no mistake.
    there = [Stage(f"{settings.by} {name}", tuple(stage)) for name, stage in zip(order, stages, strict=True) if stage]
    there[-1:] = [Stage(stage.name, (*stage.prompts, *unlabelled)) for stage in there[-1:]]
    if len(there) < 2:
        got = ", ".join(stage.name for stage in there) or "none"
        raise InputError(
            f"curriculum.by: needs problems of at least two stages, got {got}; label the problems, or leave the "
            "curriculum out"
        )
    return Curriculum(there, settings, seed=seed)


def pass_share(group: Sequence[Rollout]) -> float | None:
    """The share of a prompt's completions that are right; None when none could be judged."""
    judged = [right for rollout in group if (right := is_right(rollout)) is not None]
    return sum(judged) / len(judged) if judged else None


def is_right(rollout: Rollout) -> bool | None:
    """By the run's own verifiers where it has one, else by the evaluation's grader; None for what cannot be judged."""
    if rollout.completion.stop_reason == "error":
        return None
    asked = [rollout.parts[name] for name in ANSWER_VERIFIERS if name in rollout.parts]
    if not asked:
        return grade(rollout.completion.text, rollout.problem.answer).correct
    scores = [score for score in asked if score is not None]
    return any(score > 0 for score in scores) if scores else None


def _labels(problem: Problem, by: str) -> tuple[str, ...]:
    if by == "difficulty":
        found = problem.difficulty or problem.meta.get("difficulty")
        return () if found is None else (str(found),)
    labels = labels_of(problem.meta)
    return labels.topics if by == "topic" else (() if labels.grade is None else (labels.grade,))


def _natural(counts: Mapping[str, int], by: str) -> tuple[str, ...]:
    """Grades as at school, difficulties by their usual words or as numbers."""
    if by == "grade":
        return tuple(grade_order(counts))
    if all(name.lower() in _DIFFICULTIES for name in counts):
        return tuple(sorted(counts, key=lambda name: _DIFFICULTIES.index(name.lower())))
    if all(_is_number(name) for name in counts):
        return tuple(sorted(counts, key=float))
    raise InputError(
        f"curriculum.order: {', '.join(sorted(counts)[:8])} have no natural order; list them, the easiest first"
    )


def _check_known(labels: Sequence[Sequence[str]], places: Mapping[str, int]) -> None:
    unknown = Counter(names[0] for names in labels if names and not any(name in places for name in names))
    if unknown:
        told = ", ".join(f"{name} ({count} problems)" for name, count in sorted(unknown.items())[:8])
        raise InputError(f"curriculum.order: lacks {told}; add it, or choose problems by grades or topics")


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
