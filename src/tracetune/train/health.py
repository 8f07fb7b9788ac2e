"""Health of a GRPO run in plain words: step metrics in, what looks wrong and what to do about it out.

A rule is a pure function from the steps so far to a sentence, or None while all is well or too little is known. Its
thresholds stand beside it with their reason. `onsets` says a sentence when it becomes true, not every step after.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import NamedTuple

# One row of metrics a step, oldest first; a name that is missing or None was not measured.
History = Sequence[Mapping[str, float | None]]
Rule = Callable[[History], str | None]

# Shares are means over this many steps: one step of four prompts is too noisy to act on.
WINDOW = 5
# A sentence that was true within this many steps is not said again: a metric may hover about its threshold.
QUIET_STEPS = 20
# What the sampler and the trainer may disagree by in float32: ten times what every family keeps in the tests.
SAMPLER_GAP_BOUND = 1e-3
# A reward is about the form when its name says so; every other one is about the answer.
FORM = "format"


class Alarm(NamedTuple):
    """One sentence about the run, at the step where it became true."""

    rule: str
    step: int
    text: str


def onsets(history: History, *, sampler_gap_bound: float = SAMPLER_GAP_BOUND) -> list[Alarm]:
    """What became true with the newest step. A pure function of the history, so a resumed run repeats nothing."""
    alarms = []
    for name, rule in rules(sampler_gap_bound).items():
        text = rule(history)
        if text is not None and not _was_said(rule, history):
            step = history[-1].get("step")
            alarms.append(Alarm(name, len(history) if step is None else int(step), text))
    return alarms


def rules(sampler_gap_bound: float = SAMPLER_GAP_BOUND) -> dict[str, Rule]:
    """Every rule by its name."""
    return {
        "no_signal": no_signal,
        "length_clipped": length_clipped,
        "kl_jump": kl_jump,
        "sampler_gap": partial(sampler_gap, bound=sampler_gap_bound),
        "copies": copies,
        "entropy_collapse": entropy_collapse,
        "gradient_spike": gradient_spike,
        "errors": errors,
        "timeouts": timeouts,
        "reward_without_accuracy": reward_without_accuracy,
        "form_without_answers": form_without_answers,
    }


def _was_said(rule: Rule, history: History) -> bool:
    return any(rule(history[: len(history) - back]) for back in range(1, min(QUIET_STEPS, len(history) - 1) + 1))


def no_signal(history: History, *, limit: float = 0.95) -> str | None:
    """Equal rewards in a group have no advantage (Shao et al. 2024, eq. 3): such a step moves nothing but the KL."""
    share = _recent(history, "equal_group_share")
    if share is None or share < limit:
        return None
    return (
        f"{share:.0%} of the groups of the last {WINDOW} steps earned one reward for every completion, so there was "
        "nothing to learn from; take problems that the model solves sometimes (not never, not always), raise "
        "grpo.num_generations or generation.temperature, or set grpo.dynamic_sampling=true"
    )


def length_clipped(history: History, *, limit: float = 0.5) -> str | None:
    """A completion cut at the limit never states its answer; its low reward punishes length, not reasoning."""
    share = _recent(history, "length_clipped_share")
    if share is None or share <= limit:
        return None
    return (
        f"{share:.0%} of the completions of the last {WINDOW} steps were cut at the length limit before they ended; "
        "raise generation.max_generation_steps, or start from a model that SFT taught to stop"
    )


def kl_jump(history: History, *, floor: float = 0.05, factor: float = 5.0) -> str | None:
    """Five times the usual distance in one step is a jump; under 0.05 nats a token it is still the same model."""
    now, before = _newest(history, "kl"), _earlier(history, "kl", num_steps=10)
    if now is None or len(before) < WINDOW or now <= max(floor, factor * median(before)):
        return None
    return (
        f"the KL to the reference jumped to {now:.3g} nats a token, {_times(now, median(before))} its median of the "
        f"{len(before)} steps before; lower optimizer.learning_rate, or raise grpo.beta, and go back to a checkpoint "
        "before the jump if validation fell"
    )


def sampler_gap(history: History, *, bound: float = SAMPLER_GAP_BOUND) -> str | None:
    """A sampler that disagrees with the trainer makes every ratio wrong, however good the rewards look."""
    gap = _newest(history, "sampler_gap_max")
    if gap is None or gap <= bound:
        return None
    return (
        f"the sampler's and the trainer's log-probabilities of one token differ by {gap:.2g} nats, more than "
        f"{bound:g}; use one precision for both, and report it with this run's rollouts if they already share one"
    )


def copies(history: History, *, limit: float = 0.25) -> str | None:
    """When three of four completions repeat a sibling, a group explores as little as a fourth of its size."""
    share = _recent(history, "unique_share")
    if share is None or share >= limit:
        return None
    return (
        f"only {share:.0%} of the completions of the last {WINDOW} steps were unlike their siblings: the policy has "
        "stopped exploring; raise generation.temperature or grpo.epsilon_high, or take harder problems"
    )


def entropy_collapse(history: History, *, factor: float = 0.1) -> str | None:
    """A tenth of the first steps' entropy left: what DAPO calls collapse and meets with a higher clip (2025, 3.1)."""
    first, now = _mean(_values(history[:WINDOW], "entropy")), _recent(history, "entropy")
    if first is None or now is None or now >= factor * first:
        return None
    return (
        f"the policy's entropy fell from {first:.3g} to {now:.3g} nats a token; raise grpo.epsilon_high "
        "(0.28 is usual) or generation.temperature, or stop here: little more will be found"
    )


def gradient_spike(history: History, *, factor: float = 10.0) -> str | None:
    """Ten times the usual norm is beyond a batch's noise; clipping bounds the step but not its direction."""
    now, before = _newest(history, "grad_norm"), _earlier(history, "grad_norm", num_steps=QUIET_STEPS)
    if now is None or len(before) < 2 * WINDOW or now <= factor * median(before):
        return None
    return (
        f"the gradient norm is {now:.3g}, {_times(now, median(before))} its median of the {len(before)} steps before; "
        "look at this step with `tracetune rollouts RUN --step N`, and lower optimizer.learning_rate if it comes again"
    )


def errors(history: History, *, limit: float = 0.05) -> str | None:
    """An error row carries no gradient: from one in twenty on, a reward is broken rather than unlucky."""
    share = _recent(history, "error_share")
    if share is None or share <= limit:
        return None
    return (
        f"{share:.0%} of the completions of the last {WINDOW} steps could not be rewarded and taught nothing; see why "
        "with `tracetune rollouts RUN --errors`"
    )


def timeouts(history: History, *, limit: float = 0.05) -> str | None:
    """A verifier that is killed too often is slow for honest answers, or the policy has learnt to stall it."""
    share = _recent(history, "timeout_share")
    if share is None or share <= limit:
        return None
    return (
        f"the answer checker ran out of time on {share:.0%} of the completions of the last {WINDOW} steps; see them "
        "with `tracetune rollouts RUN --errors`: the machine is overloaded, or the answers are built to stall it"
    )


def reward_without_accuracy(history: History, *, fall: float = 0.05) -> str | None:
    """The reward rises on what is trained, held-out accuracy falls: the oldest sign of a gamed or memorised reward.

    Rewards are means of the ten steps up to each validation; a quarter of their spread counts as a rise.
    """
    at = [index for index, row in enumerate(history) if row.get("validation_accuracy") is not None]
    if len(at) < 2:
        return None
    best = max(at[:-1], key=lambda index: history[index]["validation_accuracy"] or 0.0)
    accuracy, was = (history[index].get("validation_accuracy") for index in (at[-1], best))
    reward, reward_was = (
        _mean(_values(history[max(0, end - 10) : end], "reward_mean")) for end in (at[-1] + 1, best + 1)
    )
    if accuracy is None or was is None or reward is None or reward_was is None or accuracy > was - fall:
        return None
    spread = _mean(_values(history[max(0, best - 9) : best + 1], "reward_std")) or 0.0
    if reward - reward_was <= 0.25 * spread:
        return None
    return (
        f"the mean reward rose from {reward_was:.3g} to {reward:.3g} while validation accuracy fell from {was:.1%} to "
        f"{accuracy:.1%}: the policy may be gaming a reward; read `tracetune rollouts RUN --best 20`, and keep the "
        "checkpoint of the best validation"
    )


def form_without_answers(history: History, *, num_steps: int = 20, rise: float = 0.2) -> str | None:
    """Form is learnt first and cheaply; a hint once it has risen for twenty steps and answers by less than a tenth."""
    if len(history) < 2 * num_steps:
        return None
    older, newer = history[-2 * num_steps : -num_steps], history[-num_steps:]
    names = sorted({name for row in newer for name in row if name.startswith("reward/")})
    form, answers = [name for name in names if FORM in name], [name for name in names if FORM not in name]
    if not form or not answers:
        return None
    form_rise, answer_rise = (_sum(newer, group) - _sum(older, group) for group in (form, answers))
    if form_rise < rise or answer_rise > 0.1 * form_rise:
        return None
    return (
        f"over the last {num_steps} steps the rewards for form rose by {form_rise:.2f} and those for answers by "
        f"{answer_rise:.2f}: the model learns to look right, not to be right; should it last, lower the weight of "
        f"{', '.join(name.removeprefix('reward/') for name in form)}, or take easier problems"
    )


def _values(history: History, name: str) -> list[float]:
    return [value for row in history if (value := row.get(name)) is not None]


def _newest(history: History, name: str) -> float | None:
    return history[-1].get(name) if history else None


def _earlier(history: History, name: str, *, num_steps: int) -> list[float]:
    """The values of up to `num_steps` steps before the newest."""
    return _values(history[-num_steps - 1 : -1], name)


def _recent(history: History, name: str) -> float | None:
    """The mean of the last steps; None until there are enough."""
    values = _values(history[-WINDOW:], name)
    return fmean(values) if len(values) == WINDOW else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _sum(history: History, names: Sequence[str]) -> float:
    return sum(_mean(_values(history, name)) or 0.0 for name in names)


def _times(now: float, usual: float) -> str:
    return f"{now / usual:.0f} times" if usual > 0 else "where 0 was"
