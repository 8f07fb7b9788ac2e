import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracetune.core.errors import NotFound
from tracetune.models.hub import locate
from tracetune.models.load import load_model


def test_tiny_needs_nothing_and_no_exact_case():
    assert load_model("Tiny").name == "tiny"


def test_a_folder_is_a_model(tmp_path, copy_case):
    folder = copy_case("qwen3_tied", tmp_path / "model")
    assert load_model(str(folder)).name == str(folder)


def test_a_finished_run_stands_for_its_final_checkpoint(tmp_path, copy_case):
    folder = copy_case("qwen3_tied", tmp_path / "run" / "checkpoint-final")
    assert locate(str(tmp_path / "run")) == folder


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"not a model: needs config\.json or adapter_config\.json"):
        load_model(str(tmp_path))


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(NotFound, match="is a file; pass the folder"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "did you mean tiny"),
        ("qwen3:9b", "did you mean qwen3:8b"),
        ("./no/such/folder", "no such folder or alias"),
        ("", "has no name"),
        ("a b", "no such folder or alias"),
    ],
)
def test_a_name_nobody_knows_is_refused(name, message):
    with pytest.raises(NotFound, match=message):
        locate(name)


def locate_offline(name: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its environment once, at import: a process of its own."""
    program = f"from tracetune.models.hub import locate; print(locate({name!r}))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_a_downloaded_repository_is_found_without_network(tmp_path, copy_case):
    snapshot = tmp_path / "models--Qwen--Qwen3-0.6B" / "snapshots" / ("0" * 40)
    copy_case("qwen3_tied", snapshot)
    (tmp_path / "models--Qwen--Qwen3-0.6B" / "refs").mkdir()
    (tmp_path / "models--Qwen--Qwen3-0.6B" / "refs" / "main").write_text("0" * 40)
    found = locate_offline("qwen3:0.6b", tmp_path)
    assert found.stdout.strip() == str(snapshot), found.stderr


def test_a_repository_out_of_reach_says_what_to_do(tmp_path):
    failed = locate_offline("qwen3:0.6b", tmp_path)
    message = failed.stderr.strip().splitlines()[-1]
    assert message.startswith("tracetune.core.errors.Unavailable: model 'qwen3:0.6b' (Qwen/Qwen3-0.6B): ")
    assert "hf download Qwen/Qwen3-0.6B" in message
