"""GRPO: groups of completions, what they earned, and the steps this is worth; the loop yields, the app records.

Shapes: P prompts of a step, G completions per prompt.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tracetune.backends.protocol import PolicyBackend, PolicyMetrics, told_norm
from tracetune.config.grpo_schema import GrpoSettings
from tracetune.core.errors import Diverged, InputError
from tracetune.data.pack_groups import Branch, Group
from tracetune.objectives.grpo import ALGORITHMS
from tracetune.tasks.reward_set import Rewarded
from tracetune.train.curriculum import Course, Curriculum, Draw, Turn
from tracetune.train.prompts import Prompt, PromptStream, sampling_keys
from tracetune.train.rollout import Rollout

# (user turns, completions, gold answers, other columns) → what each earned.
Score = Callable[[Sequence[str], Sequence[str], Sequence[str], Mapping[str, Sequence[object]]], Sequence[Rewarded]]
_SHOWN_IDS = 8
# What every reward is given by these names already.
_GIVEN = frozenset({"prompts", "completions", "answer"})


class Place(NamedTuple):
    """What, with the seed, says everything about what is to come: `step` optimizer steps are done, `used` prompts are
    behind, and `tokens` were sampled. `course` is that of a curriculum, None without one."""

    step: int = 0
    used: int = 0
    tokens: int = 0
    course: Course | None = None

    @classmethod
    def restored(cls, saved: Sequence[Any]) -> "Place":
        """The place that JSON kept as a list, also one from before there was a course."""
        step, used, tokens, *rest = saved
        return cls(step, used, tokens, Course.restored(rest[0]) if rest and rest[0] is not None else None)


class Timing(NamedTuple):
    """Seconds of one step by phase."""

    rollout: float
    reward: float
    reference: float
    update: float


class GrpoInfo(NamedTuple):
    """One optimizer step, already applied. Every iteration over a batch is a step and yields; the batch's rollouts
    come with the first, and `is_whole` is true on the last, when the state can be saved. `told` is what there is to
    say about the curriculum."""

    place: Place
    metrics: PolicyMetrics
    rollouts: tuple[Rollout, ...]
    rewards: Mapping[str, float]
    timing: Timing
    is_whole: bool
    told: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one run of steps is made of. Prompts come from the stream, or from the curriculum where there is one.
    `elsewhere` is what a person names to begin anew in another place."""

    backend: PolicyBackend
    stream: PromptStream
    score: Score
    settings: GrpoSettings
    num_prompts: int
    num_steps: int
    seed: int
    curriculum: Curriculum | None = None
    elsewhere: str = "another checkpoint_dir"


class _Sampled(NamedTuple):
    """The groups of one step, those that were passed over, what finding them took, and the course behind them."""

    kept: list[list[Rollout]]
    dropped: list[list[Rollout]]
    course: Course | None
    used: int
    tokens: int
    rollout_seconds: float
    reward_seconds: float


def train_grpo(recipe: Recipe, start: Place = Place()) -> Iterator[GrpoInfo]:  # noqa: B008 - a NamedTuple is a value
    """Take the steps after `start` up to `num_steps`, yielding after each.

    Raises Diverged naming the problems, the weights then being those before the step that failed.
    """
    place = start if start.course or not recipe.curriculum else start._replace(course=Course())
    while place.step < recipe.num_steps:
        sampled = _sample(recipe, place)
        groups = [group for rollouts in sampled.kept if (group := _to_group(rollouts)).branches]
        told = recipe.backend.update(groups)
        rollouts = tuple(rollout for group in (*sampled.kept, *sampled.dropped) for rollout in group)
        rewards = summarise(sampled.kept, sampled.dropped)
        if recipe.curriculum and sampled.course:
            rewards |= recipe.curriculum.metrics(sampled.course)
        for iteration, metrics in enumerate(told):
            _check_finite(recipe, metrics, place.step + 1, sampled.kept)
            is_whole = iteration == recipe.settings.num_iterations - 1 or place.step + 1 == recipe.num_steps
            tokens = place.tokens + (0 if iteration else sampled.tokens)
            place, note = place._replace(step=place.step + 1, tokens=tokens), None
            if is_whole:
                turn = _turn(recipe, sampled, num_steps=iteration + 1)
                place, note = place._replace(used=place.used + sampled.used, course=turn.course), turn.told
            first = 0.0 if iteration else 1.0
            timing = Timing(
                first * sampled.rollout_seconds,
                first * sampled.reward_seconds,
                metrics.ref_seconds,
                metrics.update_seconds,
            )
            yield GrpoInfo(place, metrics, () if iteration else rollouts, rewards, timing, is_whole, note)
            if place.step == recipe.num_steps:
                return


def _turn(recipe: Recipe, sampled: _Sampled, *, num_steps: int) -> Turn:
    if recipe.curriculum is None or sampled.course is None:
        return Turn(None)
    return recipe.curriculum.turned(sampled.course, num_steps=num_steps)


def _draw(recipe: Recipe, used: int, course: Course | None) -> Draw:
    """The prompts of one round."""
    if recipe.curriculum is None or course is None:
        prompts = [recipe.stream[index] for index in range(used, used + recipe.num_prompts)]
        return Draw(prompts, [True] * len(prompts), None)
    return recipe.curriculum.draw(course, recipe.num_prompts)


def _sample(recipe: Recipe, place: Place) -> _Sampled:
    """A step's groups. With dynamic sampling (Yu et al. 2025, section 3.2) groups whose rewards are all equal give
    way to the next prompts of the stream, in at most `max_resamples` more rounds; what is then missing is made up
    with the first of those passed over."""
    kept: list[list[Rollout]] = []
    dropped: list[list[Rollout]] = []
    used, course, tokens, seconds = place.used, place.course, 0, [0.0, 0.0]
    rounds = 1 + (recipe.settings.max_resamples if recipe.settings.dynamic_sampling else 0)
    for _ in range(rounds):
        # Always whole rounds: a compiled sampler likes one shape.
        drawn = _draw(recipe, used, course)
        groups, took = _roll_out(recipe, drawn.prompts, first=used)
        used += recipe.num_prompts
        if recipe.curriculum and drawn.course:
            of_stage = [group for group, is_fresh in zip(groups, drawn.is_fresh, strict=True) if is_fresh]
            course = recipe.curriculum.measured(drawn.course, of_stage)
        seconds = [before + more for before, more in zip(seconds, took, strict=True)]
        tokens += sum(len(rollout.completion.tokens) for group in groups for rollout in group)
        for group in groups:
            wanted = not recipe.settings.dynamic_sampling or carries_signal(group)
            (kept if wanted and len(kept) < recipe.num_prompts else dropped).append(group)
        if len(kept) == recipe.num_prompts:
            break
    _check_earned(kept + dropped)
    missing = recipe.num_prompts - len(kept)
    kept, dropped = kept + dropped[:missing], dropped[missing:]
    return _Sampled(kept, dropped, course, used - place.used, tokens, seconds[0], seconds[1])


def _roll_out(
    recipe: Recipe, prompts: Sequence[Prompt], *, first: int
) -> tuple[list[list[Rollout]], tuple[float, float]]:
    """The groups of prompts, of which `first` is the run's how-manieth, with what they earned, and the seconds of
    sampling and of rewards."""
    size = recipe.settings.num_generations
    keys_PG2 = np.stack([sampling_keys(recipe.seed, first + place, size) for place in range(len(prompts))])
    began = time.perf_counter()
    completions_PG = recipe.backend.sample([prompt.tokens for prompt in prompts], keys_PG2)
    sampled = time.perf_counter()
    flat = [(prompt, completion) for prompt, group in zip(prompts, completions_PG, strict=True) for completion in group]
    rewarded = recipe.score(
        [prompt.text for prompt, _ in flat],
        [completion.text for _, completion in flat],
        [prompt.problem.answer for prompt, _ in flat],
        _columns([prompt for prompt, _ in flat]),
    )
    made = [
        Rollout(
            problem=prompt.problem,
            prompt=prompt.text,
            prompt_tokens=prompt.tokens,
            index=place % size,
            completion=completion,
            parts=earned.parts,
            total=None if completion.stop_reason == "error" else earned.total,
            advantage=0.0,
            parsed=earned.parsed,
            timeouts=earned.timeouts,
            error=completion.error or "; ".join(f"{name}: {why}" for name, why in earned.errors.items()) or None,
        )
        for place, ((prompt, completion), earned) in enumerate(zip(flat, rewarded, strict=True))
    ]
    groups = [made[start : start + size] for start in range(0, len(made), size)]
    return _credit(groups, recipe.settings.loss), (sampled - began, time.perf_counter() - sampled)


def _columns(prompts: Sequence[Prompt]) -> dict[str, list[object]]:
    """The other fields of the problems, by name, as rewards are given them."""
    names = {name for prompt in prompts for name in prompt.problem.meta} - _GIVEN
    return {name: [prompt.problem.meta.get(name) for prompt in prompts] for name in sorted(names)}


def _credit(groups: list[list[Rollout]], loss: str) -> list[list[Rollout]]:
    rewards_PG = np.array(
        [[np.nan if rollout.total is None else rollout.total for rollout in group] for group in groups], np.float64
    )
    advantages_PG = ALGORITHMS[loss].advantages(rewards_PG)
    return [
        [replace(rollout, advantage=float(credit)) for rollout, credit in zip(group, row, strict=True)]
        for group, row in zip(groups, advantages_PG, strict=True)
    ]


def carries_signal(group: Sequence[Rollout]) -> bool:
    """Whether two completions of a group earned differently."""
    return len({rollout.total for rollout in group if rollout.total is not None}) > 1


def _to_group(rollouts: Sequence[Rollout]) -> Group:
    """What the update reads: completions that earned something, good or bad; error rows teach nothing."""
    branches = [
        Branch(rollout.completion.tokens, rollout.advantage, rollout.completion.policy_logprobs)
        for rollout in rollouts
        if rollout.total is not None
    ]
    return Group(rollouts[0].prompt_tokens, branches)


def summarise(kept: Sequence[Sequence[Rollout]], dropped: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """How a step's completions did, over all that were sampled: rewards, lengths, shares of what went wrong.

    `equal_group_share` is that of the groups trained on.
    """
    groups = [*kept, *dropped]
    rollouts = [rollout for group in groups for rollout in group]
    totals = np.array([rollout.total for rollout in rollouts if rollout.total is not None])
    lengths = np.array([len(rollout.completion.tokens) for rollout in rollouts])
    clipped = [rollout.completion.stop_reason == "length" for rollout in rollouts]
    told = {
        "reward_mean": float(totals.mean()) if totals.size else 0.0,
        "reward_std": float(totals.std()) if totals.size else 0.0,
        "equal_group_share": float(np.mean([not carries_signal(group) for group in kept])),
        "completion_length_mean": float(lengths.mean()),
        "length_clipped_share": float(np.mean(clipped)),
        "error_share": float(np.mean([rollout.total is None for rollout in rollouts])),
        "timeout_share": float(np.mean([rollout.timeouts > 0 for rollout in rollouts])),
        # The mean of -log p over what was drawn estimates the entropy without bias.
        "entropy": -float(np.mean([value for rollout in rollouts for value in rollout.completion.policy_logprobs])),
        "unique_share": float(np.mean([len({r.completion.tokens for r in group}) / len(group) for group in groups])),
    }
    if dropped:
        told["dropped_groups"] = float(len(dropped))
    for name in sorted({name for rollout in rollouts for name in rollout.parts}):
        spoken = [rollout for rollout in rollouts if rollout.completion.stop_reason != "error"]
        parts = [value for rollout in spoken if (value := rollout.parts.get(name)) is not None]
        if parts:
            told |= {f"reward/{name}": float(np.mean(parts)), f"reward_std/{name}": float(np.std(parts))}
    return told


def _check_earned(groups: Sequence[Sequence[Rollout]]) -> None:
    """Raises InputError when nothing could be learnt because every completion failed."""
    rollouts = [rollout for group in groups for rollout in group]
    if all(rollout.total is None for rollout in rollouts):
        raise InputError(
            f"rewards: all {len(rollouts)} completions of a step failed, the first with {rollouts[0].error}; "
            "mend the reward, then run again to resume"
        )


def _check_finite(recipe: Recipe, metrics: PolicyMetrics, step: int, groups: Sequence[Sequence[Rollout]]) -> None:
    if metrics.finite:
        return
    ids = [group[0].problem.id for group in groups]
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    raise Diverged(
        f"step {step}: loss is {metrics.loss:g} and gradient norm {told_norm(metrics.grad_norm)} on the problems "
        f"{', '.join(ids[:_SHOWN_IDS])}{more}; begin anew with a lower optimizer.learning_rate or a higher grpo.beta "
        f"and {recipe.elsewhere}; nothing of this step was kept"
    )
