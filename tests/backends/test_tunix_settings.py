"""What a run by Tunix refuses, each by its name and with the reason; and our weights in its layout. No Tunix needed."""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.backends.fixtures.tunix_oracle import cases, random_model

from tracetune.app.grpo import run_grpo
from tracetune.backends.local_state import with_adapter
from tracetune.backends.tunix_models import Layout, check_model
from tracetune.backends.tunix_rollout import Words, choose_pad, spell
from tracetune.backends.tunix_settings import check_model_settings, check_settings
from tracetune.config.grpo import resolve_grpo
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError, Unavailable
from tracetune.models.arch import Arch, arch_from_hf

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
ARCHS = cases()


def known(name: str) -> Arch:
    return arch_from_hf(json.loads((FIXTURES / name / "config.json").read_text()))


def qwen(theta: float) -> Arch:
    arch = ARCHS["qwen3_tied"]
    return replace(arch, rope=replace(arch.rope, theta=theta))


@pytest.mark.parametrize(
    ("arch", "told"),
    [
        (known("llama3"), r"ignores rope_theta for Llama and turns by 1,000,000 \(this model: 500,000\)"),
        (qwen(5_000_000.0), "ignores rope_theta for Qwen3 .* this model by 5,000,000, as the 2507 releases"),
        (known("qwen3_untied"), "this model by 10,000"),
        (known("gemma3"), "every 6th layer of its is global"),
        (known("gemma2"), "trains qwen3 and gemma3_text models here, got gemma2"),
        (known("qwen2"), "got qwen2"),
        (replace(ARCHS["gemma3_grouped"], norm_eps=1e-5), "its norms add 1e-06, this model's 1e-05"),
        (replace(ARCHS["gemma3_grouped"], query_scalar=7), "this model by 1/√7"),
        (replace(ARCHS["qwen3_tied"], attn_bias=True), "no biases"),
    ],
)
def test_a_model_that_tunix_computes_wrongly_is_refused_with_the_reason(arch, told):
    with pytest.raises(InputError, match=f"{told}.*set backend: local"):
        check_model(arch)


@pytest.mark.parametrize("name", sorted(ARCHS))
def test_models_that_it_computes_right_are_let_through(name):
    check_model(ARCHS[name])


def test_settings_that_a_supervised_run_obeys_are_let_through_and_every_other_is_named():
    obeyed = {"training": {"gradient_accumulation_steps": 2}, "benchmark": "quick"}
    check_settings(load_sft_config({"backend": "tunix", **obeyed}))
    wrong = {"backend": "tunix", "model": {"dtype": "bfloat16", "mesh_shape": [[2, 1], ["fsdp", "tp"]]}}
    with pytest.raises(InputError) as refused:
        check_settings(load_sft_config(wrong, ["training.gradient_checkpointing=dots"]))
    for name in (
        "model.mesh.shape must be (1, 1), got (2, 1)",
        "model.dtype must be float32",
        "gradient_checkpointing",
    ):
        assert name in str(refused.value)


def test_settings_that_a_grpo_run_obeys_are_let_through_and_every_other_is_named():
    check_settings(resolve_grpo({"backend": "tunix", "grpo": {"loss": "dr_grpo", "num_iterations": 2}}))
    with pytest.raises(InputError, match=r"grpo\.loss must be one of grpo, dapo, dr_grpo, rloo, got gspo"):
        check_settings(resolve_grpo({"backend": "tunix", "grpo": {"loss": "gspo"}}))


def test_a_grpo_run_says_how_to_install_what_it_needs(tmp_path):
    try:
        pytest.skip(f"google-tunix {version('google-tunix')} is installed")
    except PackageNotFoundError:
        with pytest.raises(Unavailable, match=r'pip install "tracetune\[tunix\]"'):
            run_grpo(resolve_grpo({"backend": "tunix"}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_part_of_a_fused_kernel_cannot_be_adapted_alone():
    model = random_model(ARCHS["gemma3_grouped"])
    with pytest.raises(InputError, match=r"k_proj, v_proj of gemma3_text in one kernel .* v_proj is missing"):
        check_model_settings(model, LoraSettings(target_modules=("q_proj", "k_proj")))
    check_model_settings(model, LoraSettings(target_modules=("q_proj", "gate_proj")))
    check_model_settings(random_model(ARCHS["qwen3_tied"]), LoraSettings(target_modules=("k_proj",)))


@pytest.mark.slow
def test_an_adapter_with_an_input_matrix_for_each_part_is_not_gone_on_with():
    model = with_adapter(random_model(ARCHS["gemma3_grouped"]), LoraSettings(r=2), seed=0)
    with pytest.raises(InputError, match="one LoRA input matrix for k_proj, v_proj"):
        check_model_settings(model, None)
    layout = Layout(model.arch)
    check_model_settings(model._replace(lora=layout.split(layout.join(model.lora))), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ARCHS))
def test_weights_and_adapters_come_back_from_tunix_layout_as_they_went(name):
    layout, model = Layout(ARCHS[name]), random_model(ARCHS[name])
    same(layout.weights_from(layout.weights_to(model.params)), model.params)
    lora = layout.join(with_adapter(model, LoraSettings(r=2), seed=0).lora)
    lora = jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape), lora)
    same(layout.adapter_from(layout.adapter_to(lora)), lora)
    same(layout.join(layout.split(lora)), lora)


def test_prompts_reach_tunix_as_the_tokens_they_are():
    words = Words(pad=0)
    assert words.encode(spell([5, 700, 2])) == [5, 700, 2]
    assert words.bos_id() is None


def test_padding_is_an_id_that_means_nothing_else():
    model = random_model(ARCHS["qwen3_tied"])
    assert choose_pad(model) == model.tokenizer.pad_id
    roomy = model._replace(arch=replace(model.arch, vocab_size=model.arch.vocab_size + 3))
    assert choose_pad(roomy) == roomy.arch.vocab_size - 1


def same(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
