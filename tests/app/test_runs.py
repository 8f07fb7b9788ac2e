"""Run folders: one writer, metrics cut back to a checkpoint, manifests whole."""

import json
import multiprocessing
from pathlib import Path

import pytest

from tracetune.app.runs import (
    MetricsFile,
    find_manifest,
    first_metrics_difference,
    hold_run,
    read_manifest,
    read_metrics,
    write_manifest,
)
from tracetune.core.errors import Conflict, Corrupt, NotFound, StorageError


def hold_and_wait(root: Path, ready, done) -> None:
    with hold_run(root):
        ready.set()
        done.wait(30)


def test_a_second_trainer_is_refused_and_told_who_holds_the_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold_and_wait, args=(tmp_path, ready, done))
    holder.start()
    try:
        assert ready.wait(60)
        with pytest.raises(Conflict, match=f"process {holder.pid} is training"), hold_run(tmp_path):
            pass
    finally:
        holder.kill()
        holder.join()
    with hold_run(tmp_path):
        assert (tmp_path / ".lock").is_file()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="run"), hold_run(tmp_path / "file" / "run"):
        pass
    with hold_run(tmp_path / "folder" / "run"):
        pass


def test_metrics_are_cut_back_to_what_the_checkpoint_saw(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, keep_bytes=0)
    metrics.append({"step": 1})
    kept = metrics.sync()
    metrics.append({"step": 2})
    metrics.close()
    with path.open("a") as file:
        file.write('{"step": 3')

    metrics = MetricsFile(path, keep_bytes=kept)
    metrics.append({"step": 2, "again": True})
    metrics.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "again": True}]


def test_a_metrics_line_ends_where_json_does(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = {"step": 1, "note": "one\u2028two\u2029three\u0085four"}
    metrics = MetricsFile(path, keep_bytes=0)
    metrics.append(row)
    metrics.close()
    assert read_metrics(path) == [row]
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(Corrupt, match=r"metrics\.jsonl:2: is not JSON"):
        read_metrics(path)


def test_metrics_shorter_than_the_checkpoint_saw_are_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(Corrupt, match=r"metrics\.jsonl: has 12 bytes"):
        MetricsFile(path, keep_bytes=13)
    MetricsFile(path, keep_bytes=12).close()
    assert path.read_text() == '{"step": 1}\n'


def test_metrics_are_compared_without_their_timing(tmp_path):
    left, right = tmp_path / "a", tmp_path / "b"
    left.write_text('{"step": 1, "loss": 0.5, "timestamp": "x", "tokens_per_second": 1}\n')
    right.write_text('{"step": 1, "loss": 0.5, "timestamp": "y", "tokens_per_second": 2}\n')
    assert first_metrics_difference(left, right) is None
    right.write_text('{"step": 1, "loss": 0.25, "timestamp": "y", "tokens_per_second": 2}\n')
    assert first_metrics_difference(left, right) == "step 1: loss was 0.5, is 0.25"
    right.write_text(left.read_text() * 2)
    assert first_metrics_difference(left, right) == "1 logged steps were, 2 are"


def test_manifests_come_back_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "other_name.json"
    assert read_manifest(path) is None
    write_manifest(path, {"recipe": "trace_sft_v1", "name": "é"})
    assert read_manifest(path) == {"recipe": "trace_sft_v1", "name": "é"}
    assert find_manifest(tmp_path) == (path, json.loads(path.read_text()))
    path.write_text(path.read_text()[:-4])
    with pytest.raises(Corrupt, match="other_name"):
        read_manifest(path)


def test_a_folder_without_a_run_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no run manifest"):
        find_manifest(tmp_path)
