"""A policy on the local engine: its reference, what it compiles, and that sampler and trainer agree in every family."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tracetune.backends.local_policy import LocalPolicy
from tracetune.config.grpo_schema import (
    GenerationSettings,
    GrpoConfig,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
)
from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.data.pack_groups import Branch, Group
from tracetune.models.arch import arch_from_hf, arch_to_hf
from tracetune.models.load import load_model
from tracetune.models.model import Model, make_model
from tracetune.models.tiny import tiny_arch, tiny_tokenizer
from tracetune.models.transformer import init_params

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
FAMILIES = (
    "qwen3_tied",
    *(pytest.param(family, marks=pytest.mark.long) for family in ("gemma3", "llama3")),
    *(pytest.param(family, marks=pytest.mark.soak) for family in ("gemma", "gemma2", "qwen2", "qwen3_untied")),
)
PROMPTS = [[5, 6, 7, 8], [9, 10]]


def config(*, lora: bool = False, beta: float = 0.04, temperature: float = 0.8) -> GrpoConfig:
    return GrpoConfig(
        model=GrpoModelSettings(lora=LoraSettings(r=4, alpha=8.0) if lora else None),
        optimizer=OptimizerSettings(learning_rate=0.02),
        grpo=GrpoSettings(num_generations=4, beta=beta),
        generation=GenerationSettings(max_generation_steps=12, temperature=temperature, top_k=None),
        training=GrpoTrainingSettings(micro_batch_size=2),
    )


def policy(model: Model, settings: GrpoConfig) -> LocalPolicy:
    return LocalPolicy(model, settings, num_steps=10, longest_prompt=4)


def small() -> Model:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    arch = arch_from_hf({**arch_to_hf(tiny_arch()), **shape, "num_key_value_heads": 1, "head_dim": 8})
    return make_model("small", arch, init_params(jax.random.key(3), arch), tiny_tokenizer())


def keys(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (2, 4, 2), dtype=np.uint32)


def groups_of(backend: LocalPolicy, seed: int = 0) -> list[Group]:
    """Sampled completions, every other one to be made more likely."""
    said = backend.sample(PROMPTS, keys(seed))
    return [
        Group(prompt, [Branch(one.tokens, (-1.0) ** place, one.policy_logprobs) for place, one in enumerate(group)])
        for prompt, group in zip(PROMPTS, said, strict=True)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_sampler_and_trainer_agree_in_every_family(family, copy_case, tmp_path):
    backend = policy(load_model(str(copy_case(family, tmp_path / family))), config(beta=0.0))
    (metrics,) = backend.update(groups_of(backend))
    assert metrics.num_targets >= 8
    assert metrics.gap_max < 1e-4


@pytest.mark.long
def test_in_bfloat16_the_sampler_says_what_the_trainer_learns_from_and_small_changes_of_an_adapter_stay():
    settings = config(lora=True)
    backend = policy(small(), replace(settings, model=replace(settings.model, dtype="bfloat16")))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(backend.frozen)} == {"bfloat16", "float32"}
    gaps = []
    for _ in range(3):
        (metrics,) = backend.update(groups_of(backend))
        assert metrics.finite
        gaps.append(metrics.gap_max)
    # Logits of a few units, of eight bits each.
    assert max(gaps) < 0.05
    assert metrics.kl > 0
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(backend.model.lora))


def test_a_gap_that_is_there_is_seen():
    backend = policy(small(), config(beta=0.0))
    groups = groups_of(backend)
    wrong = [group._replace(branches=[b._replace(policy_logprobs=[-9.0] * len(b.tokens)) for b in group.branches])
             for group in groups]  # fmt: skip
    (metrics,) = backend.update(wrong)
    assert metrics.gap_max > 1.0


def test_under_an_adapter_the_reference_is_the_weights_themselves():
    model = small()
    backend = policy(model, config(lora=True))
    assert backend._reference is not None
    assert backend._reference[0]["embed"] is model.params["embed"]
    (first,) = backend.update(groups_of(backend))
    assert first.kl == pytest.approx(0.0, abs=1e-6)
    for seed in range(3):
        (later,) = backend.update(groups_of(backend, seed))
    assert later.kl > 1e-6


def test_without_a_penalty_nobody_holds_a_reference():
    assert policy(small(), config(beta=0.0))._reference is None
    assert policy(small(), config())._reference is not None


def test_completions_of_any_length_are_one_shape():
    backend = policy(small(), config())
    for length in (1, 5, 12):
        group = Group(PROMPTS[0], [Branch([7] * length, 1.0, [-1.0] * length)])
        list(backend.update([group]))
    assert backend.num_compilations == 1
