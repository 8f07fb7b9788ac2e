"""Each rule speaks when its case is there and keeps silent beside it; what was said is not said again."""

import json

import pytest

from tracetune.train.health import QUIET_STEPS, onsets, rules

FORM, ANSWER = "reward/match_format_exactly", "reward/check_answer"


def steady(num_steps: int, **metrics: float | None) -> list[dict[str, float | None]]:
    return [dict(metrics) for _ in range(num_steps)]


def validated(reward: float, accuracy: float) -> list[dict[str, float | None]]:
    row = {"reward_mean": reward, "reward_std": 1.0}
    return [*steady(9, **row), {**row, "validation_accuracy": accuracy}]


SICK_AND_WELL = {
    "no_signal": (steady(5, equal_group_share=1.0), steady(5, equal_group_share=0.75)),
    "length_clipped": (steady(5, length_clipped_share=0.75), steady(5, length_clipped_share=0.5)),
    "kl_jump": ([*steady(9, kl=0.02), {"kl": 0.2}], [*steady(9, kl=0.02), {"kl": 0.09}]),
    "sampler_gap": ([{"sampler_gap_max": 0.002}], [{"sampler_gap_max": 0.0009}]),
    "copies": (steady(5, unique_share=0.2), steady(5, unique_share=0.25)),
    "entropy_collapse": (
        [*steady(5, entropy=1.0), *steady(5, entropy=0.05)],
        [*steady(5, entropy=1.0), *steady(5, entropy=0.2)],
    ),
    "gradient_spike": (
        [*steady(10, grad_norm=0.1), {"grad_norm": 1.1}],
        [*steady(10, grad_norm=0.1), {"grad_norm": 0.9}],
    ),
    "errors": (steady(5, error_share=0.06), steady(5, error_share=0.05)),
    "timeouts": (steady(5, timeout_share=0.06), steady(5, timeout_share=0.05)),
    "reward_without_accuracy": (
        [*validated(1.0, 0.6), *validated(2.0, 0.5)],
        [*validated(1.0, 0.6), *validated(2.0, 0.7)],
    ),
    "form_without_answers": (
        [*steady(20, **{FORM: 1.0, ANSWER: 0.5}), *steady(20, **{FORM: 2.0, ANSWER: 0.55})],
        [*steady(20, **{FORM: 1.0, ANSWER: 0.5}), *steady(20, **{FORM: 2.0, ANSWER: 1.0})],
    ),
}


@pytest.mark.parametrize("name", sorted(rules()))
def test_a_rule_speaks_in_its_case_and_not_beside_it(name):
    sick, well = SICK_AND_WELL[name]
    assert rules()[name](well) is None
    assert [alarm.rule for alarm in onsets(sick)] == [name]
    assert onsets(well) == []


@pytest.mark.parametrize("name", sorted(rules()))
def test_every_sentence_says_what_to_do(name):
    text = rules()[name](SICK_AND_WELL[name][0])
    assert text is not None
    assert "; " in text or ": " in text
    assert any(advice in text for advice in ("raise", "lower", "read", "see", "take", "use one", "look at"))


@pytest.mark.parametrize("name", sorted(rules()))
def test_nothing_is_said_about_what_was_not_measured(name):
    sick, _ = SICK_AND_WELL[name]
    assert rules()[name]([]) is None
    assert rules()[name]([dict.fromkeys(row) for row in sick]) is None
    assert rules()[name]([{} for _ in sick]) is None


@pytest.mark.parametrize("name", ["no_signal", "length_clipped", "copies", "errors", "timeouts"])
def test_a_share_needs_several_steps_to_be_believed(name):
    sick, _ = SICK_AND_WELL[name]
    assert rules()[name](sick[:4]) is None


def said(history: list[dict[str, float | None]]) -> list[int]:
    return [alarm.step for end in range(1, len(history) + 1) for alarm in onsets(history[:end])]


def test_a_sentence_is_said_once_an_onset():
    sick, well = steady(60, equal_group_share=1.0), steady(QUIET_STEPS + 10, equal_group_share=0.0)
    assert said(sick) == [5]
    assert said([*sick, *well, *sick]) == [5, 60 + len(well) + 5]


def test_a_metric_that_hovers_about_its_threshold_is_not_news_every_time():
    hovering = [{"sampler_gap_max": gap} for gap in (0.002, 0.0005) * 10]
    assert said(hovering) == [1]
    apart = [{"sampler_gap_max": 0.002}, *steady(QUIET_STEPS, sampler_gap_max=0.0), {"sampler_gap_max": 0.002}]
    assert said(apart) == [1, QUIET_STEPS + 2]


def test_the_step_is_the_metrics_own_where_it_has_one():
    (alarm,) = onsets([{"step": 40, "sampler_gap_max": 1.0}])
    assert alarm.step == 40


def test_a_history_read_back_from_metrics_says_the_same():
    history = [{**row, "step": step} for step, row in enumerate(SICK_AND_WELL["reward_without_accuracy"][0], start=1)]
    assert onsets(json.loads(json.dumps(history))) == onsets(history) != []


def test_the_bound_of_the_gap_follows_the_precision():
    history = [{"sampler_gap_max": 0.01}]
    assert onsets(history)
    assert not onsets(history, sampler_gap_bound=0.05)


def test_a_fall_of_accuracy_is_measured_from_the_best_validation():
    history = [*validated(1.0, 0.5), *validated(1.2, 0.7), *validated(1.3, 0.66), *validated(2.0, 0.6)]
    assert said([*history, *steady(60, reward_mean=2.0), *validated(2.0, 0.6)]) == [40]
    falling_reward = [*validated(2.0, 0.6), *validated(1.0, 0.5)]
    assert said(falling_reward) == []
