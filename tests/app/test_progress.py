"""Progress: a bar on a terminal, one line a logged step elsewhere, everything in the log."""

import io

import pytest

from tracetune.app.progress import Meter, Reporter
from tracetune.core.errors import StorageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(stream: io.StringIO, log) -> None:
    with Reporter(stream, log=log) as reporter:
        reporter.say("two rows [bold]left out[/bold]")
        reporter.begin(4, step=0)
        for step in range(1, 5):
            reporter.step(step, f"loss {step}", logged=step % 2 == 0)


def test_without_a_terminal_logged_steps_are_plain_lines(tmp_path):
    stream = io.StringIO()
    report(stream, tmp_path / "train.log")
    assert stream.getvalue().splitlines() == ["two rows [bold]left out[/bold]", "step 2 · loss 2", "step 4 · loss 4"]


def test_a_terminal_shows_a_bar_that_moves_every_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    report(stream, tmp_path / "train.log")
    assert "4/4" in stream.getvalue()
    assert "loss 4" in stream.getvalue()
    assert "step 4 ·" not in stream.getvalue()


def test_the_log_has_every_line_with_its_time_and_grows(tmp_path):
    log = tmp_path / "train.log"
    for stream in (io.StringIO(), Terminal()):
        report(stream, log)
    told = [line.partition(" ") for line in log.read_text().splitlines()]
    assert [text for _, _, text in told] == ["two rows [bold]left out[/bold]", "step 2 · loss 2", "step 4 · loss 4"] * 2
    assert all(time.endswith("+00:00") for time, _, _ in told)


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"train\.log: cannot be written"):
        Reporter(io.StringIO(), log=tmp_path / "missing" / "train.log")
    with Reporter(io.StringIO(), log=tmp_path / "train.log"):
        pass


def test_the_time_left_forgets_the_step_that_compiled():
    meter = Meter(num_steps=4000, clock=iter([0.0, 100.0, 101.0, 102.0]).__next__)
    for _ in range(3):
        meter.tick(50)
    assert meter.tokens_per_second == 50
    assert meter.eta(3) == "1:06:37"
    assert meter.eta(3940) == "1:00"
