"""Compiled programs outlive their process; where they lie, and how to have none."""

import json
import os
import subprocess
import sys

import pytest

from tracetune.app.compile_cache import cache_folder
from tracetune.core.errors import InputError

PROGRAM = """
import json
from tracetune.app.compile_cache import compiled_so_far, use_compile_cache
use_compile_cache()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()
print(json.dumps(compiled_so_far().told()))
"""


def compiled(setting: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"TRACETUNE_COMPILE_CACHE": setting, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_second_start_reads_what_the_first_compiled(tmp_path):
    first, second = compiled(str(tmp_path)), compiled(str(tmp_path))
    assert first["programs"] == second["programs"] > 0
    assert first["from_cache"] == 0
    assert second["from_cache"] == second["programs"]
    assert second["seconds"] < first["seconds"]
    assert compiled("off")["from_cache"] == 0


def test_programs_lie_in_the_users_cache_apart_by_processor(tmp_path, monkeypatch):
    monkeypatch.delenv("TRACETUNE_COMPILE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path / "tracetune" / "compiled"
    monkeypatch.setenv("TRACETUNE_COMPILE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "compiled" / folder.name
    monkeypatch.setenv("TRACETUNE_COMPILE_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.setenv("TRACETUNE_COMPILE_CACHE", "some/where")
    with pytest.raises(InputError, match="absolute"):
        cache_folder()
