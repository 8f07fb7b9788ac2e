"""Checkpoints: whole or absent, verified on load, and the last good one is always found."""

import resource
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tracetune.core.errors import Conflict, Corrupt, NotFound, StorageError
from tracetune.engine import slices
from tracetune.engine.checkpoint import (
    checkpoint_folder,
    clear_partials,
    keep_newest,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: object


def make_state(value: float = 1.0) -> State:
    params = {"w": jnp.full((3, 2), value), "half": jnp.full((4,), value, jnp.bfloat16)}
    return State(jnp.int32(7), params, optax.adamw(1e-3).init(params))


def same(left, right) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() and a.dtype == b.dtype for a, b in pairs)


def flip_bit(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position // 8] ^= 1 << (position % 8)
    path.write_bytes(bytes(data))


def test_a_state_comes_back_bit_for_bit_in_its_own_types(tmp_path):
    state = make_state(1 / 3)
    save_checkpoint(tmp_path / "step-000001", state, {"step": 1, "epoch": 0})
    loaded = load_checkpoint(tmp_path / "step-000001", make_state(0.0))
    assert same(loaded.arrays, state)
    assert isinstance(loaded.arrays, State)
    assert loaded.meta == {"step": 1, "epoch": 0}


def test_large_states_are_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "SHARD_BYTES", 30)
    save_checkpoint(tmp_path / "c", make_state(2.0), {})
    assert len(list((tmp_path / "c").glob("state-*.safetensors"))) > 3
    assert same(load_checkpoint(tmp_path / "c", make_state()).arrays, make_state(2.0))


def test_every_flipped_bit_of_every_file_is_refused_and_the_file_named(tmp_path):
    folder = tmp_path / "step-000001"
    save_checkpoint(folder, make_state(), {"step": 1})
    for file in sorted(folder.iterdir()):
        size = file.stat().st_size * 8
        for position in np.random.default_rng(0).choice(size, size=60, replace=False):
            flip_bit(file, int(position))
            with pytest.raises(Corrupt, match=file.name):
                load_checkpoint(folder, make_state())
            flip_bit(file, int(position))
    load_checkpoint(folder, make_state())


@pytest.mark.parametrize("harm", ["truncate", "empty", "delete"])
@pytest.mark.parametrize("name", ["state-00000.safetensors", "manifest.json"])
def test_a_damaged_file_is_refused(tmp_path, harm, name):
    folder = tmp_path / "step-000001"
    save_checkpoint(folder, make_state(), {})
    file = folder / name
    data = file.read_bytes()
    if harm == "delete":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if harm == "truncate" else b"")
    with pytest.raises(Corrupt, match=name):
        load_checkpoint(folder, make_state())
    file.write_bytes(data)
    load_checkpoint(folder, make_state())


def test_a_checkpoint_of_another_shape_is_a_conflict_not_a_crash(tmp_path):
    save_checkpoint(tmp_path / "c", {"w": np.zeros(3, np.float32)}, {})
    with pytest.raises(Conflict, match="must be"):
        load_checkpoint(tmp_path / "c", {"w": np.zeros(4, np.float32)})
    with pytest.raises(Conflict, match="does not match"):
        load_checkpoint(tmp_path / "c", {"v": np.zeros(3, np.float32)})
    load_checkpoint(tmp_path / "c", {"w": np.zeros(3, np.float32)})


def test_a_missing_checkpoint_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        load_checkpoint(tmp_path / "gone", make_state())
    assert latest_checkpoint(tmp_path / "gone", make_state(), warn=pytest.fail) is None


def test_the_newest_good_checkpoint_is_used_and_the_damaged_one_named(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(checkpoint_folder(tmp_path, step), make_state(float(step)), {"step": step})
    told: list[str] = []
    found = latest_checkpoint(tmp_path, make_state(), warn=told.append)
    assert (found and found.meta["step"], told) == (3, [])

    flip_bit(checkpoint_folder(tmp_path, 3) / "state-00000.safetensors", 999)
    found = latest_checkpoint(tmp_path, make_state(), warn=told.append)
    assert found is not None
    assert found.meta["step"] == 2
    assert same(found.arrays, make_state(2.0))
    assert len(told) == 1
    assert "step-000003" in told[0]


def test_when_nothing_is_intact_the_run_does_not_begin_again_in_silence(tmp_path):
    save_checkpoint(checkpoint_folder(tmp_path, 1), make_state(), {})
    flip_bit(checkpoint_folder(tmp_path, 1) / "manifest.json", 80)
    with pytest.raises(Corrupt, match="no checkpoint is intact"):
        latest_checkpoint(tmp_path, make_state(), warn=[].append)


def test_rotation_keeps_the_newest_and_never_the_one_just_saved(tmp_path):
    for step in (5, 10, 100, 999_999, 1_000_000):
        save_checkpoint(checkpoint_folder(tmp_path, step), {"w": np.zeros(1)}, {})
    keep_newest(tmp_path, checkpoint_folder(tmp_path, 1_000_000), 2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    keep_newest(tmp_path, checkpoint_folder(tmp_path, 999_999), 1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-999999", "step-1000000"]


def test_leftovers_of_killed_writers_are_cleared_and_nothing_else(tmp_path):
    save_checkpoint(checkpoint_folder(tmp_path, 1), {"w": np.zeros(1)}, {})
    (tmp_path / ".step-000002.77.partial").mkdir()
    (tmp_path / ".step-000001.77.replaced").mkdir()
    (tmp_path / ".manifest.json.77.partial").write_text("x")
    clear_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path):
    big = {"w": np.zeros(100_000, np.float32)}
    save_checkpoint(checkpoint_folder(tmp_path, 1), big, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="step-000002"):
            save_checkpoint(checkpoint_folder(tmp_path, 2), big, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    save_checkpoint(checkpoint_folder(tmp_path, 2), big, {"step": 2})
    found = latest_checkpoint(tmp_path, big, warn=pytest.fail)
    assert found is not None
    assert found.meta == {"step": 2}
