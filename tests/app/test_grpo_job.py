"""`tracetune.train` as its users import it: from a composed configuration, a mapping or typed settings."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf

import tracetune.train
from tracetune.config.compose import CONF
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.errors import InputError
from tracetune.train import calculate_max_steps, create_cluster_config, create_optimizer

pytestmark = pytest.mark.slow


def composed(*overrides: str):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def test_the_steps_of_a_run_are_known_from_its_configuration():
    cfg = composed("+experiment=quick_test", "grpo.num_iterations=3")
    assert calculate_max_steps(cfg) == 30
    assert calculate_max_steps(cfg, num_problems=4) == 12
    assert calculate_max_steps(OmegaConf.to_container(cfg, resolve=True)) == 30
    assert calculate_max_steps(GrpoConfig()) == 3738


def test_the_package_itself_can_be_given_to_hydra():
    with initialize_config_module("tracetune.config.conf", version_base="1.3"):
        assert calculate_max_steps(compose("config", overrides=["training.num_batches=5"])) == 5


@pytest.mark.slow
def test_the_optimizer_warms_up_and_ends_with_the_run():
    optimizer = create_optimizer(composed("optimizer.learning_rate=0.1", "optimizer.warmup_ratio=0.5"), 10)
    rates = [float(optimizer.schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rates[:5], [0.02, 0.04, 0.06, 0.08, 0.1], rtol=1e-6)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[10] == pytest.approx(0.0, abs=1e-7)
    params = {"w": jnp.ones((2, 2))}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert float(updates["w"][0, 0]) < 0


def test_the_cluster_is_one_mesh_with_what_was_asked_for():
    cfg = composed("generation.temperature=0.7", "training.num_batches=6")
    cluster = create_cluster_config(cfg)
    assert (cluster.max_steps, cluster.rollout.temperature) == (6, 0.7)
    assert cluster.mesh.axis_names == ("fsdp", "tp")
    mesh = jax.make_mesh((1,), ("data",))
    optimizer = create_optimizer(cfg, 3)
    given = create_cluster_config(cfg, mesh, optimizer, 3)
    assert (given.mesh, given.optimizer, given.max_steps) == (mesh, optimizer, 3)


def test_a_wrong_configuration_is_refused_with_every_mistake():
    cfg = OmegaConf.create({"grpo": {"num_generations": 1}, "sed": 3})
    for verb in (calculate_max_steps, tracetune.train.train):
        with pytest.raises(InputError, match="did you mean seed") as caught:
            verb(cfg)
        assert "num_generations: must be a whole number of at least 2" in str(caught.value)


@pytest.mark.long
def test_a_composed_run_writes_its_folder_where_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("training.num_batches=1", "training.num_test_batches=2", "generation.max_generation_steps=8")
    result = tracetune.train.train(composed("+experiment=quick_test", *small))
    assert (result.status, result.num_steps) == ("finished", 1)
    (folder,) = tmp_path.glob("outputs/tunix-grpo/*-*-*/*-*-*")
    assert result.folder.resolve() == folder
    told = json.loads((folder / "result.json").read_text())
    assert told["status"] == "finished"
    assert told["metrics"]["validation_accuracy"] == result.metrics["validation_accuracy"]


def test_without_a_configuration_the_command_line_is_composed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["my_script.py", "model=tny"])
    with pytest.raises(InputError, match="did you mean tiny"):
        tracetune.train.train()


def test_a_name_that_is_not_offered_is_refused():
    assert {"train", "create_optimizer", "sft"} <= set(dir(tracetune.train)) | {"sft"}
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = tracetune.train.trian
