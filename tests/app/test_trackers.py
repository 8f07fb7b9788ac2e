"""Trackers: TensorBoard reads every step once after a resume; W&B is off unless asked for; a failure is told once."""

import json
import struct
import sys
from pathlib import Path

import pytest

from tracetune.app.tensorboard import TensorBoard
from tracetune.app.trackers import Trackers
from tracetune.app.wandb_run import is_wanted
from tracetune.config.grpo_schema import TrackingSettings

QUIET = TrackingSettings(wandb_disabled=True)


def events(folder: Path) -> list:
    """What TensorBoard would read, in its order: the files by name, the events as they were written."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def shown(folder: Path, tag: str) -> dict[int, float]:
    """The curve that TensorBoard shows: a session's start hides every earlier event from its step on."""
    curve: dict[int, float] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            curve = {step: value for step, value in curve.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == tag:
                assert event.step not in curve
                curve[event.step] = value.simple_value
    return curve


class Failing:
    """A tracker whose every call is refused."""

    name, errors = "Failing", (OSError,)

    def __init__(self, error: Exception):
        self.error, self.calls = error, 0

    def log(self, step, metrics):
        del step, metrics
        self.calls += 1
        raise self.error

    def close(self):
        self.log(0, {})


def test_every_number_is_a_curve_and_what_was_not_measured_is_none(tmp_path):
    trackers = Trackers.open(tmp_path, QUIET, {"seed": 1}, warn=pytest.fail)
    trackers.log(1, {"loss": 0.5, "validation_accuracy": None})
    trackers.log(2, {"loss": 0.25, "validation_accuracy": 1})
    # Flushed every step: a killed run loses nothing.
    assert shown(tmp_path / "tensorboard", "loss") == {1: 0.5, 2: 0.25}
    assert shown(tmp_path / "tensorboard", "validation_accuracy") == {2: 1.0}
    trackers.close()


def test_a_resumed_run_repeats_no_step(tmp_path):
    for resumed_after, last in ((0, 5), (3, 6), (3, 4)):
        trackers = Trackers.open(tmp_path, QUIET, {}, step=resumed_after, warn=pytest.fail)
        for step in range(resumed_after + 1, last + 1):
            trackers.log(step, {"loss": step + last / 8})
        trackers.close()
    assert shown(tmp_path / "tensorboard", "loss") == {1: 1.625, 2: 2.625, 3: 3.625, 4: 4.5}


def test_the_files_go_where_log_dir_says_and_show_the_settings(tmp_path):
    settings = TrackingSettings(wandb_disabled=True, log_dir=str(tmp_path / "logs"))
    Trackers.open(tmp_path / "run", settings, {"seed": 7}, warn=pytest.fail).close()
    assert not (tmp_path / "run" / "tensorboard").exists()
    (text,) = [value for event in events(tmp_path / "logs") for value in event.summary.value]
    assert b'{"seed":7}' in text.tensor.string_val[0]


def test_a_tracker_that_fails_is_told_about_once_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "top-secret")
    warnings: list[str] = []
    failing, working = Failing(OSError("disk full for top-secret")), TensorBoard(tmp_path, {})
    trackers = Trackers([failing, working], warn=warnings.append)
    for step in (1, 2):
        trackers.log(step, {"loss": 1.0})
    trackers.close()
    assert failing.calls == 1
    assert warnings == ["Failing: disk full for …; left out from here on, metrics.jsonl has every step"]
    assert shown(tmp_path, "loss") == {1: 1.0, 2: 1.0}


def test_a_mistake_of_ours_is_not_taken_for_a_failing_tracker():
    with pytest.raises(ZeroDivisionError):
        Trackers([Failing(ZeroDivisionError())], warn=pytest.fail).log(1, {})


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    warnings: list[str] = []
    trackers = Trackers.open(tmp_path / "file", QUIET, {}, warn=warnings.append)
    trackers.log(1, {"loss": 1.0})
    trackers.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("TensorBoard: ")


@pytest.mark.parametrize(
    ("environ", "disabled", "wanted"),
    [
        ({}, False, False),
        ({"WANDB_API_KEY": "k"}, False, True),
        ({"WANDB_API_KEY": "k"}, True, False),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, False, False),
        ({"WANDB_API_KEY": "k", "WANDB_DISABLED": "true"}, False, False),
        ({"WANDB_MODE": "offline"}, False, True),
        ({"WANDB_MODE": "offline"}, True, False),
        ({"WANDB_MODE": "online"}, False, False),
    ],
)
def test_wandb_is_on_only_with_a_key_or_offline_and_never_when_disabled(environ, disabled, wanted):
    assert is_wanted(TrackingSettings(wandb_disabled=disabled), environ) is wanted


def test_wandb_configured_and_not_installed_is_a_warning_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    warnings: list[str] = []
    Trackers.open(tmp_path, TrackingSettings(), {}, warn=warnings.append).close()
    assert len(warnings) == 1
    assert 'pip install -e ".[wandb]"' in warnings[0]
    Trackers.open(tmp_path, QUIET, {}, warn=pytest.fail).close()


@pytest.mark.slow
def test_an_offline_wandb_run_goes_on_under_its_id_and_gives_every_step_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason='needs pip install -e ".[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    record = tmp_path / "wandb.json"
    kept = []
    for resumed_after, last in ((0, 4), (2, 6)):
        trackers = Trackers.open(tmp_path, TrackingSettings(), {"seed": 1}, step=resumed_after, warn=pytest.fail)
        for step in range(resumed_after + 1, last + 1):
            trackers.log(step, {"loss": 1 / step})
        trackers.close()
        kept.append(record.read_text())
    first, second = map(json.loads, kept)
    assert first["id"] == second["id"]
    assert (first["step"], second["step"]) == (4, 6)
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{first['id']}.wandb"))) == 2
