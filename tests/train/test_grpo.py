"""The loop: which prompts a step sees, what error rows do, what dynamic sampling passes over, how it goes on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tracetune.backends.protocol import PolicyMetrics
from tracetune.config.grpo_schema import GrpoSettings
from tracetune.core.errors import Diverged, InputError
from tracetune.core.values import Completion, Problem
from tracetune.tasks.reward_set import Rewarded
from tracetune.train.grpo import Place, Recipe, train_grpo
from tracetune.train.prompts import Prompt, PromptStream, sampling_keys

PROMPTS = [Prompt(Problem(f"p{n}", f"question {n}", str(n)), f"question {n}", (n + 1, 7)) for n in range(7)]


class Recorder:
    """A policy that says one token drawn from each key, and keeps what it is asked to learn."""

    def __init__(self, *, num_iterations: int = 1, loss: float = 0.5) -> None:
        self.num_iterations, self.loss = num_iterations, loss
        self.asked: list[list[int]] = []
        self.learnt: list = []

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: np.ndarray) -> list[list[Completion]]:
        self.asked.append([prompt[0] - 1 for prompt in prompts])
        return [
            [Completion((int(key[0] % 50),), (-1.0,), f"{key[0] % 50}", "stop", None, (-1.0,), (-1.0,)) for key in keys]
            for keys in keys_PG2
        ]

    def update(self, groups) -> list[PolicyMetrics]:
        self.learnt.append(groups)
        return [PolicyMetrics(self.loss, 1.0, 0.1, 4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)] * self.num_iterations


def parity(prompts, completions, answers, columns) -> list[Rewarded]:
    """1 for an even token; nothing for a token over 40, which fails."""
    del prompts, answers, columns
    return [
        Rewarded(None, {"even": None}, {"even": "too large"}, 0, None)
        if int(text) > 40
        else Rewarded(float(int(text) % 2 == 0), {"even": float(int(text) % 2 == 0)}, {}, 0, text)
        for text in completions
    ]


def recipe(backend, *, score=parity, num_steps=5, **settings) -> Recipe:
    return Recipe(
        backend=backend,
        stream=PromptStream(PROMPTS, seed=3),
        score=score,
        settings=GrpoSettings(num_generations=4, **settings),
        num_prompts=2,
        num_steps=num_steps,
        seed=3,
    )


def test_every_problem_comes_once_an_epoch_and_epochs_differ_in_order():
    backend = Recorder()
    list(train_grpo(recipe(backend, num_steps=7)))
    asked = [number for batch in backend.asked for number in batch]
    assert sorted(asked[:7]) == sorted(asked[7:14]) == list(range(7))
    assert asked[:7] != asked[7:14]


def test_going_on_from_any_place_is_the_same_as_never_having_stopped():
    whole = list(train_grpo(recipe(Recorder())))
    for stopped in whole[:-1]:
        rest = list(train_grpo(recipe(Recorder()), stopped.place))
        assert [info.rollouts for info in rest] == [info.rollouts for info in whole[stopped.place.step :]]
        assert rest[-1].place == whole[-1].place


def test_an_error_row_teaches_nothing_and_is_kept_with_its_reason():
    backend = Recorder()
    infos = list(train_grpo(recipe(backend, num_steps=7)))
    rollouts = [rollout for info in infos for rollout in info.rollouts]
    failed = [rollout for rollout in rollouts if rollout.total is None]
    assert failed
    assert all(rollout.error == "even: too large" and rollout.advantage == 0.0 for rollout in failed)
    learnt = [branch for groups in backend.learnt for group in groups for branch in group.branches]
    assert len(learnt) == len(rollouts) - len(failed)
    assert all(branch.tokens[0] <= 40 for branch in learnt)
    assert infos[0].rewards["error_share"] == np.mean([rollout.total is None for rollout in infos[0].rollouts])


def test_a_step_in_which_every_reward_failed_is_an_error_with_the_first_reason():
    def broken(prompts, completions, answers, columns):
        return [Rewarded(None, {"r": None}, {"r": "no module"}, 0, None) for _ in completions]

    with pytest.raises(InputError, match=r"all 8 completions of a step failed, the first with r: no module"):
        list(train_grpo(recipe(Recorder(), score=broken)))


def test_dynamic_sampling_trains_on_groups_that_differ_and_goes_through_more_problems():
    def only_some(prompts, completions, answers, columns):
        # Problems of even number earn alike whatever is said.
        return [
            Rewarded(1.0 if int(answer) % 2 == 0 else float(int(text) % 2 == 0), {}, {}, 0, None)
            for text, answer in zip(completions, answers, strict=True)
        ]

    plain, dynamic = Recorder(), Recorder()
    list(train_grpo(recipe(plain, score=only_some)))
    infos = list(train_grpo(recipe(dynamic, score=only_some, dynamic_sampling=True, max_resamples=8)))
    credit = [{branch.advantage for branch in group.branches} for groups in dynamic.learnt for group in groups]
    assert all(len(advantages) > 1 for advantages in credit)
    assert any({branch.advantage for branch in group.branches} == {0.0} for groups in plain.learnt for group in groups)
    assert all(len(groups) == 2 for groups in dynamic.learnt)
    assert infos[-1].place.used > 10
    assert infos[-1].place.used == 2 * len(dynamic.asked)


def test_dynamic_sampling_gives_up_after_its_rounds_and_trains_on_what_there_is():
    def equal(prompts, completions, answers, columns):
        return [Rewarded(1.0, {}, {}, 0, None) for _ in completions]

    backend = Recorder()
    (info,) = train_grpo(recipe(backend, score=equal, num_steps=1, dynamic_sampling=True, max_resamples=3))
    assert len(backend.asked) == 4
    assert len(backend.learnt[0]) == 2
    assert info.rewards["dropped_groups"] == 6


def test_several_iterations_are_several_steps_over_the_same_completions():
    backend = Recorder(num_iterations=2)
    infos = list(train_grpo(recipe(backend, num_steps=5, num_iterations=2)))
    assert [info.place.step for info in infos] == [1, 2, 3, 4, 5]
    assert [info.is_whole for info in infos] == [False, True, False, True, True]
    assert [bool(info.rollouts) for info in infos] == [True, False, True, False, True]
    assert [info.place.used for info in infos] == [0, 2, 2, 4, 6]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_problems():
    with pytest.raises(Diverged, match=r"step 1: loss is nan .* problems p\d, p\d; begin anew"):
        list(train_grpo(recipe(Recorder(loss=float("nan")))))
    lost = replace(recipe(Recorder(loss=float("nan"))), elsewhere="another --output")
    with pytest.raises(Diverged, match=r"grpo\.beta and another --output; nothing"):
        list(train_grpo(lost))
    assert list(train_grpo(recipe(Recorder(), num_steps=1)))


def test_what_a_step_earned_is_told_by_part_and_without_what_failed():
    info = next(train_grpo(recipe(Recorder(), num_steps=1)))
    scores = [rollout.total for rollout in info.rollouts if rollout.total is not None]
    assert info.rewards["reward_mean"] == info.rewards["reward/even"] == np.mean(scores)
    assert info.rewards["reward_std"] == info.rewards["reward_std/even"] == np.std(scores)
    groups = [info.rollouts[:4], info.rollouts[4:]]
    equal = [len({one.total for one in group if one.total is not None}) < 2 for group in groups]
    assert info.rewards["equal_group_share"] == np.mean(equal)


def test_each_completion_has_a_key_of_its_own():
    keys = {tuple(key) for index in range(50) for key in sampling_keys(1, index, 8).tolist()}
    assert len(keys) == 400
    assert sampling_keys(1, 3, 8).tolist() == sampling_keys(1, 3, 8).tolist() != sampling_keys(2, 3, 8).tolist()


def test_the_first_place_is_the_beginning():
    assert Place() == (0, 0, 0, None)
    assert Place.restored([4, 8, 99]) == Place(4, 8, 99)
