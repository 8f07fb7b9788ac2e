"""What a Tinker service cannot obey is refused by name before anything is sent; what it can is let through."""

from dataclasses import replace
from importlib.util import find_spec

import pytest

from tracetune.backends import tinker_settings
from tracetune.backends.tinker_settings import check_settings, is_installed
from tracetune.config.benchmark import BenchmarkSettings
from tracetune.config.grpo_schema import GenerationSettings, GrpoConfig, GrpoModelSettings
from tracetune.config.schema import (
    LoraSettings,
    MeshSettings,
    ModelSettings,
    OptimizerSettings,
    SftConfig,
    TrainingSettings,
)
from tracetune.core.errors import InputError, Unavailable

LORA = LoraSettings()
SFT = SftConfig(backend="tinker", model=ModelSettings(lora=LORA))
GRPO = GrpoConfig(
    backend="tinker", model=GrpoModelSettings(lora=LORA), generation=GenerationSettings(temperature=1.0, top_k=None)
)


def with_lora(**dials) -> SftConfig:
    return replace(SFT, model=replace(SFT.model, lora=replace(LORA, **dials)))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (SftConfig(backend="tinker"), r"model\.lora\.r must be set, since the service trains adapters only, got none"),
        (replace(GRPO, model=GrpoModelSettings()), r"model\.lora_rank must be set"),
        (with_lora(alpha=16.0), "lora alpha must be 32, which services scale by and cannot be told, got 16"),
        (
            with_lora(target_modules=("q_proj", "v_proj")),
            "target_modules must be all of k_proj, o_proj, q_proj, v_proj",
        ),
        (with_lora(quantize="nf4"), r"model\.lora\.quantize must be None, got nf4"),
        (replace(SFT, model=replace(SFT.model, dtype="bfloat16")), r"model\.dtype must be None, got bfloat16"),
        (
            replace(SFT, model=replace(SFT.model, mesh=MeshSettings(shape=(2, 1)))),
            r"model\.mesh\.shape must be \(1, 1\)",
        ),
        (replace(SFT, optimizer=OptimizerSettings(offload=True)), r"optimizer\.offload must be False, got True"),
        (
            replace(SFT, training=TrainingSettings(gradient_checkpointing=True)),
            r"training\.gradient_checkpointing must be False, got True",
        ),
        (
            replace(GRPO, generation=GenerationSettings(temperature=0.9)),
            r"generation\.temperature must be 1, the only one at which the service's trainer tells log-probs, got 0\.9",
        ),
    ],
)
def test_a_setting_that_a_service_cannot_obey_is_named(config, told):
    with pytest.raises(InputError, match=told) as caught:
        check_settings(config)
    assert str(caught.value).endswith("; change them, or set backend: local")


@pytest.mark.parametrize(
    "config",
    [
        SFT,
        GRPO,
        replace(SFT, benchmark=BenchmarkSettings(suite="quick")),
        with_lora(target_modules=("v_proj", "q_proj", "o_proj", "k_proj"), r=4),
        replace(SFT, optimizer=OptimizerSettings(max_grad_norm=None, weight_decay=0.1, schedule="cosine", beta2=0.95)),
        replace(GRPO, grpo=replace(GRPO.grpo, loss="gspo", beta=0.1, num_iterations=2, epsilon_high=0.3)),
    ],
)
def test_settings_that_a_service_obeys_are_let_through(config):
    check_settings(config)


def test_every_mistake_is_told_at_once():
    config = replace(with_lora(alpha=8.0), optimizer=OptimizerSettings(offload=True))
    with pytest.raises(InputError, match=r"optimizer\.offload .*; lora alpha must be 32"):
        check_settings(config)


def test_an_untested_sdk_is_refused_and_a_missing_one_is_not_here(monkeypatch):
    monkeypatch.setattr(tinker_settings, "version", lambda _: "0.39.1")
    with pytest.raises(Unavailable, match=r"needs the SDK tinker .*, got 0\.39\.1; run pip install"):
        is_installed()
    monkeypatch.setattr(tinker_settings, "version", lambda _: "0.38.4")
    assert is_installed()
    monkeypatch.undo()
    assert is_installed() == (find_spec("tinker") is not None)
