import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tracetune.core.errors import Corrupt, InputError, NotFound
from tracetune.models.tensorfile import TensorSpec, open_tensors, write_tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones((3,), ml_dtypes.bfloat16),
    "c": np.full((2, 2), 0.5, np.float16),
}


def read_all(folder):
    with open_tensors(folder, "model") as tensors:
        return {name: tensor.read() for name, tensor in tensors.items()}


@pytest.fixture
def folder(tmp_path):
    specs = [TensorSpec(name, array.shape, array.dtype) for name, array in ARRAYS.items()]
    write_tensors(tmp_path / "model.safetensors", specs, ARRAYS.values())
    return tmp_path


def test_the_reference_reader_reads_what_was_written(folder):
    reread = load_file(folder / "model.safetensors")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(reread[name], array)
        assert reread[name].dtype == array.dtype


def test_what_was_written_is_read_back(folder):
    reread = read_all(folder)
    assert all(np.array_equal(reread[name], array) for name, array in ARRAYS.items())


def test_every_truncation_is_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Corrupt, match=r"model\.safetensors: not a whole"):
            read_all(folder)
    path.write_bytes(whole)
    read_all(folder)


def test_a_header_bit_flip_is_refused_or_changes_names_and_types_only(folder):
    """Without a checksum beside it the header alone is checked: never a traceback of another kind."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for position in range(header):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            read_all(folder)
        except (Corrupt, InputError):
            refused += 1
    assert refused > header // 2


def test_nan_weights_are_refused(tmp_path):
    save_file({"a": np.array([1.0, np.nan], np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(Corrupt, match="tensor a holds NaN"):
        read_all(tmp_path)
    save_file({"a": np.array([1.0, 2.0], np.float32)}, tmp_path / "model.safetensors")
    read_all(tmp_path)


def test_quantised_weights_are_refused(tmp_path):
    save_file({"a": np.ones(2, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="tensor a must be one of F32, F16, BF16, got I8"):
        read_all(tmp_path)


def test_pickled_weights_are_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(NotFound, match="safetensors"):
        read_all(tmp_path)


@pytest.fixture
def sharded(tmp_path):
    for name, array in ARRAYS.items():
        save_file({name: array}, tmp_path / f"model-{name}.safetensors")
    write_index(tmp_path, {name: f"model-{name}.safetensors" for name in ARRAYS})
    return tmp_path


def write_index(folder, placed):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def test_shards_are_one_checkpoint(sharded):
    assert read_all(sharded).keys() == ARRAYS.keys()


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-b.safetensors").unlink()
    with pytest.raises(NotFound, match=r"model-b\.safetensors"):
        read_all(sharded)


@pytest.mark.parametrize(
    "placed",
    [
        {
            "a": "model-a.safetensors",
            "b": "model-b.safetensors",
            "c": "model-c.safetensors",
            "d": "model-c.safetensors",
        },
        {"a": "model-b.safetensors", "b": "model-a.safetensors"},
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(sharded, placed):
    write_index(sharded, placed)
    with pytest.raises(InputError, match="differs from its shards"):
        read_all(sharded)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_refused(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(Corrupt, match=r"index\.json"):
        read_all(sharded)


def test_a_shard_outside_the_folder_is_refused(sharded):
    write_index(sharded, {"a": "../model-a.safetensors"})
    with pytest.raises(InputError, match="beside the index"):
        read_all(sharded)
