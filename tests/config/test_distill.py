"""A distillation file is obeyed whole or refused with every mistake."""

import pytest

from tracetune.config.distill import distill_mapping, load_distill_config
from tracetune.config.distill_policy import policy_config
from tracetune.core.errors import InputError


@pytest.mark.parametrize("method", ["sequence", "logit", "on_policy"])
def test_what_is_written_is_read_back_equal(method):
    given = {
        "method": method,
        "teacher": {"model": "qwen3:8b"},
        "model": {"base_model": "tiny", "peft_config": {"r": 4}},
    }
    config = load_distill_config(given)
    assert load_distill_config(distill_mapping(config)) == config
    assert (config.model.name, config.model.lora.r) == ("tiny", 4)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": "sequence", "distillation": {"loss": "jsd"}}, "distillation.loss: has no effect with method: seq"),
        ({"method": "logit", "student": {"max_tokens": 9}}, "student.max_tokens: has no effect with method: logit"),
        ({"method": "on_policy", "data": {"eval_file": "x"}}, "data.eval_file: has no effect with method: on_policy"),
        ({"distillation": {"beta": 0.5}}, "distillation.beta: has no effect with loss: forward_kl"),
        ({"distillation": {"loss": "jsd", "beta": 1}}, "must be below 1, got 1"),
        ({"method": "on_policy", "distillation": {"loss": "jsd"}}, "must be reverse_kl where the teacher scores"),
        ({"teacher": {"tokenizer": "tiny"}}, "teacher.tokenizer: has no effect without teacher.url"),
        ({"method": "sequence", "data": {"eval_fraction": 0.1}}, "data.eval_fraction: has no effect with method: seq"),
        ({"method": "sequence", "data": {"format": "auto"}}, "data.format: has no effect with method: seq"),
        ({"method": "sequence", "data": {"train_files": ["a"]}}, "data.train_files: has no effect with method: seq"),
        (
            {"method": "sequence", "teacher": {"url": "http://h", "batch_size": 8}},
            "teacher.batch_size: has no effect with method: sequence and teacher.url; remove it",
        ),
        (
            {"method": "sequence", "teacher": {"backend": "tinker", "batch_size": 8}},
            "teacher.batch_size: has no effect with method: sequence and teacher.backend: tinker; remove it",
        ),
        (
            {"method": "sequence", "teacher": {"url": "http://h", "tokenizer": "tiny"}},
            "teacher.tokenizer: has no effect with method: sequence and teacher.url; remove it",
        ),
        ({"techer": {"model": "tiny"}}, "did you mean teacher.model"),
    ],
)
def test_what_would_not_be_obeyed_is_refused(given, told):
    with pytest.raises(InputError, match=told):
        load_distill_config(given)


@pytest.mark.parametrize(
    "given",
    [
        {"method": "sequence", "data": {"eval_file": "x", "train_file": "y"}, "teacher": {"batch_size": 8}},
        {"method": "sequence", "teacher": {"url": "http://h", "key_variable": "KEY"}},
        {"method": "sequence", "teacher": {"backend": "tinker", "tokenizer": "tiny"}},
        {"method": "logit", "data": {"eval_fraction": 0.1, "format": "messages"}},
        {"method": "logit", "teacher": {"url": "http://h", "tokenizer": "tiny"}},
    ],
)
def test_what_is_obeyed_is_let_through_and_read_back_equal(given):
    config = load_distill_config(given)
    assert load_distill_config(distill_mapping(config)) == config


def test_every_mistake_is_told_at_once():
    with pytest.raises(InputError) as error:
        load_distill_config({"method": "sequence", "teacher": {"top_k": 0}, "student": {"max_tokens": 2}, "steps": "x"})
    assert str(error.value).count("\n") == 2


def test_more_than_one_candidate_opens_the_other_losses_on_policy():
    exact = load_distill_config({"method": "on_policy", "teacher": {"top_k": 4}, "distillation": {"loss": "jsd"}})
    assert (exact.teacher.top_k, exact.distillation.loss) == (4, "jsd")
    sampled = load_distill_config({"method": "on_policy"})
    assert (sampled.teacher.top_k, sampled.distillation.loss) == (1, "reverse_kl")


def test_a_policy_step_is_the_mean_over_tokens_at_the_students_own_distribution():
    policy = policy_config(load_distill_config({"method": "on_policy", "student": {"num_samples": 2}}))
    assert (policy.grpo.beta, policy.grpo.num_iterations, policy.grpo.num_generations) == (0.0, 1, 2)
    assert (policy.generation.temperature, policy.generation.top_k, policy.generation.top_p) == (1.0, None, 1.0)
