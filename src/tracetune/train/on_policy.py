"""On-policy distillation: the student answers, and the teacher judges every token that it said.

With one candidate the sampled token's advantage is log p(teacher) - log p(student), whose mean is an unbiased estimate
of the reverse KL at the student's own prefixes; nothing is discounted, since each token is judged where it stands
(Agarwal et al. 2024; Lu and Thinking Machines Lab 2025). With several the divergence is summed at each of those
prefixes instead of sampled. Shapes: P prompts of a step, G answers to each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from tracetune.backends.protocol import PolicyBackend, Saved, StepMetrics, told_norm
from tracetune.backends.teacher import Teacher
from tracetune.core.errors import Diverged, InputError
from tracetune.core.values import Completion, Example
from tracetune.data.pack_groups import Branch, Group
from tracetune.data.pack_teacher import Said
from tracetune.tasks.grading import grade
from tracetune.train.info import Position, StepInfo
from tracetune.train.prompts import Prompt, PromptStream, sampling_keys

_SHOWN_IDS = 8


class Sampler(Saved, Protocol):
    """A student that answers by the weights as they are."""

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: np.ndarray) -> list[list[Completion]]:
        """G answers to each prompt, each from its own key."""
        ...


class ExactStudent(Sampler, Protocol):
    """One that also learns from what a teacher said of the likeliest tokens."""

    def learn(self, answers: Sequence[Example], said: Mapping[int, Said]) -> StepMetrics:
        """One optimizer step over all answers, by their index."""
        ...


class Answer(NamedTuple):
    """What the student said to the `place`-th prompt of a step."""

    place: int
    prompt: Prompt
    completion: Completion

    @property
    def sequence(self) -> tuple[int, ...]:
        """Prompt and answer, as the teacher reads them."""
        return (*self.prompt.tokens, *self.completion.tokens)


# One optimizer step over what the student said.
Learn = Callable[[Sequence[Answer]], StepMetrics]


@dataclass(frozen=True, kw_only=True)
class OnPolicy:
    """What one run of steps is made of."""

    student: Sampler
    learn: Learn
    stream: PromptStream
    num_prompts: int
    num_samples: int
    num_steps: int
    seed: int


def distill_on_policy(recipe: OnPolicy, start: Position) -> Iterator[StepInfo]:
    """Take the steps after `start` up to `num_steps`, yielding after each; `cursor` counts prompts that are behind.

    Raises Diverged naming the prompts, the weights then being those before the step that failed.
    """
    position = start
    while position.step < recipe.num_steps:
        places = range(position.cursor, position.cursor + recipe.num_prompts)
        prompts = [recipe.stream[place] for place in places]
        keys_PG2 = np.stack([sampling_keys(recipe.seed, place, recipe.num_samples) for place in places])
        groups = recipe.student.sample([prompt.tokens for prompt in prompts], keys_PG2)
        answers = [
            Answer(place, prompt, completion)
            for place, (prompt, group) in enumerate(zip(prompts, groups, strict=True))
            for completion in group
            if completion.tokens
        ]
        _check_answered(groups, position.step + 1)
        metrics = recipe.learn(answers)
        _check_finite(metrics, position.step + 1, prompts)
        said = sum(len(answer.completion.tokens) for answer in answers)
        tokens = said + sum(len(prompt.tokens) for prompt in prompts)
        position = Position(position.step + 1, places.stop // len(recipe.stream), places.stop, position.tokens + tokens)
        yield StepInfo(position, metrics, tokens, told=summarise(answers))


def learn_sampled(student: PolicyBackend, teacher: Teacher) -> Learn:
    """By the sampled tokens alone: a policy step with a credit of its own for every token."""

    def learn(answers: Sequence[Answer]) -> StepMetrics:
        judged = teacher.logprobs([answer.sequence for answer in answers])
        groups: dict[int, Group] = {}
        for answer, logprobs in zip(answers, judged, strict=True):
            said = answer.completion
            credit = logprobs[-len(said.tokens) :] - np.asarray(said.policy_logprobs, np.float32)
            group = groups.get(answer.place, Group(answer.prompt.tokens, []))
            branch = Branch(said.tokens, credit, said.policy_logprobs)
            groups[answer.place] = group._replace(branches=[*group.branches, branch])
        (told,) = student.update(list(groups.values()))
        return StepMetrics(told.loss, told.grad_norm, told.learning_rate, told.num_targets)

    return learn


def learn_exactly(student: ExactStudent, teacher: Teacher, k: int, *, temperature: float) -> Learn:
    """By the teacher's `k` likeliest tokens at every place of the answers."""

    def learn(answers: Sequence[Answer]) -> StepMetrics:
        found = teacher.likeliest([answer.sequence for answer in answers], k, temperature=temperature)
        examples = [
            Example(
                answer.sequence,
                (0,) * len(answer.prompt.tokens) + (1,) * len(answer.completion.tokens),
                answer.prompt.problem.id,
            )
            for answer in answers
        ]
        return student.learn(examples, {index: Said(*told) for index, told in enumerate(found)})

    return learn


def summarise(answers: Sequence[Answer]) -> dict[str, float]:
    """How long the answers of a step were, how many were cut, and of those with a gold answer how many were right."""
    told = {
        "completion_length_mean": float(np.mean([len(answer.completion.tokens) for answer in answers])),
        "length_clipped_share": float(np.mean([answer.completion.stop_reason == "length" for answer in answers])),
    }
    verdicts = [
        grade(answer.completion.text, gold).correct for answer in answers if (gold := answer.prompt.problem.answer)
    ]
    known = [verdict for verdict in verdicts if verdict is not None]
    return told | ({"accuracy": float(np.mean(known))} if known else {})


def _check_answered(groups: Sequence[Sequence[Completion]], step: int) -> None:
    said = [completion for group in groups for completion in group]
    if not any(completion.tokens for completion in said):
        raise InputError(
            f"step {step}: the student answered none of {len(said)} times, the first because "
            f"{said[0].error or 'it said nothing'}; look at the prompts"
        )


def _check_finite(metrics: StepMetrics, step: int, prompts: Sequence[Prompt]) -> None:
    if metrics.finite:
        return
    ids = [prompt.problem.id for prompt in prompts]
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    raise Diverged(
        f"step {step}: loss is {metrics.loss:g} and gradient norm {told_norm(metrics.grad_norm)} on the prompts "
        f"{', '.join(ids[:_SHOWN_IDS])}{more}; lower learning_rate, then run again: nothing of this step was kept"
    )
