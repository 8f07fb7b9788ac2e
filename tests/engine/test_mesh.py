"""Meshes: the table of names, what is refused, and that every mesh of eight devices gives what one device does."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from jax.tree_util import DictKey

from tracetune.config.schema import MeshSettings
from tracetune.core.errors import InputError
from tracetune.engine.mesh import fill_rows, make_mesh
from tracetune.models.quant import quantize
from tracetune.models.shard import spec_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MESH = AbstractMesh((2, 2, 2), ("dp", "fsdp", "tp"))


def spec(*names: str, shape: tuple[int, ...]) -> PartitionSpec:
    return spec_of(tuple(DictKey(name) for name in names), shape, MESH)


def test_inputs_lie_over_fsdp_and_outputs_over_tp_and_back():
    for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        assert spec("layers", name, shape=(3, 4, 6)) == PartitionSpec(None, "fsdp", "tp")
    for name in ("o_proj", "down_proj"):
        assert spec("layers", name, shape=(3, 4, 6)) == PartitionSpec(None, "tp", "fsdp")
    for name in ("embed", "head"):
        assert spec(name, shape=(4, 6)) == PartitionSpec("tp", "fsdp")
    assert spec("layers", "attn_norm", shape=(3, 4)) == PartitionSpec(None, None)


def test_an_adapter_lies_as_its_weight_but_along_the_rank():
    assert spec("layers", "q_proj", "a", shape=(3, 4, 2)) == PartitionSpec(None, "fsdp", None)
    assert spec("layers", "q_proj", "b", shape=(3, 2, 6)) == PartitionSpec(None, None, "tp")
    assert spec("layers", "down_proj", "a", shape=(3, 4, 2)) == PartitionSpec(None, "tp", None)


def test_blocks_of_four_bits_lie_as_their_scales():
    packed = jax.eval_shape(partial(quantize, kind="nf4"), jax.ShapeDtypeStruct((3, 256, 6), np.float32))
    shapes = jax.tree_util.tree_leaves_with_path({"layers": {"q_proj": packed}})
    assert [spec_of(path, leaf.shape, MESH) for path, leaf in shapes] == [
        PartitionSpec(None, "fsdp", None, "tp"),
        PartitionSpec(None, "fsdp", "tp"),
    ]


def test_an_axis_that_does_not_divide_a_dimension_is_left_out():
    assert spec("layers", "q_proj", shape=(3, 5, 6)) == PartitionSpec(None, None, "tp")
    assert spec("embed", shape=(7, 6)) == PartitionSpec(None, "fsdp")


def test_one_device_needs_no_mesh():
    assert make_mesh(MeshSettings()) is None


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(InputError, match=r"lays out 4 devices, but there are 1"):
        make_mesh(MeshSettings(shape=(2, 2), axes=("fsdp", "tp")))
    with pytest.raises(InputError, match="has no axis 'pp'"):
        make_mesh(MeshSettings(shape=(2,), axes=("pp",)))


def test_rows_of_zeros_fill_a_batch():
    filled = fill_rows(np.ones((2, 3, 4), np.int32), 4, axis=1)
    assert filled.shape == (2, 4, 4)
    assert filled[:, :3].all()
    assert not filled[:, 3].any()


def on_mesh(name: str, what: tuple[str, ...]) -> dict[str, Any]:
    """What a process with eight simulated devices says of a mesh."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "tests.engine.on_meshes", name, *what]
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    # The compiler would say so if it had to bring an activation together.
    assert "Involuntary full rematerialization" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param("8x1", ("sft",), marks=pytest.mark.soak),
        ("2x4", ("sft", "grpo", "sft-nf4")),
        pytest.param("4x2", ("sft", "sft-lora", "sft-int8"), marks=pytest.mark.soak),
        ("2x2x2", ("sft-offload", "grpo-lora", "said")),
    ],
)
def test_loss_gradient_and_greedy_tokens_are_those_of_one_device(name, what):
    one, many = on_mesh("one", what), on_mesh(name, what)
    for run in what:
        if run == "said":
            assert many[run] == one[run]
            continue
        np.testing.assert_allclose(many[run]["losses"], one[run]["losses"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(many[run]["gradient"], one[run]["gradient"], atol=1e-5, rtol=0)
        assert max(map(abs, one[run]["gradient"])) > 1e-2


@pytest.mark.long
def test_a_checkpoint_goes_from_mesh_to_mesh_to_one_device(tmp_path):
    told = on_mesh("2x2x2", ("saved",))["saved"]
    assert told == {"parts": True, "whole_arrays": 0, "4x2": True, "one": True, "export": True, "damaged": "Corrupt"}
    assert jax.device_count() == 1
