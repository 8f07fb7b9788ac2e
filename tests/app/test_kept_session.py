"""What a session of any run keeps: its manifest says how it stands, and no run is gone on with as another."""

import io
import json
from typing import NamedTuple

import pytest

from tracetune.app.kept_session import KeptSession, due
from tracetune.app.progress import Reporter
from tracetune.app.runs import RunFolder
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import Conflict

INPUTS = {"recipe": "none", "training_config": {"seed": 1}}


class End(NamedTuple):
    status: str
    num_steps: int
    signal_number: int | None = None


class Short(KeptSession[End]):
    """A session that trains nothing, and ends as it is told."""

    end: End | Exception = End("finished", 3)

    def _train(self):
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


def session(root):
    root.mkdir(exist_ok=True)
    folder = RunFolder(root, OutputSettings())
    facts = {"settings": "a: 1\n", "described": {"num_steps": 3}, "max_checkpoints": 1}
    return Short(folder, folder.checkpoints, Reporter(io.StringIO()), **facts)


def manifest(root):
    return json.loads(RunFolder(root, OutputSettings()).manifest.read_bytes())


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (End("finished", 3), "finished", None),
        (End("interrupted", 2, 15), "interrupted", "stopped by signal 15; run again to resume"),
        (ValueError("no"), "failed", "ValueError: no"),
    ],
)
def test_the_manifest_says_how_a_session_ended(tmp_path, end, status, reason):
    one = session(tmp_path)
    one.end = end
    if isinstance(end, Exception):
        with pytest.raises(ValueError, match="no"):
            one.execute(INPUTS)
    else:
        assert one.execute(INPUTS) == end
    told = manifest(tmp_path)
    assert (told["status"], told["exit_reason"], len(told["sessions"])) == (status, reason, 1)
    assert (told["num_steps"], one.folder.config.read_text()) == (3, "a: 1\n")


def test_a_run_that_another_trainer_began_meanwhile_is_not_gone_on_with(tmp_path):
    session(tmp_path).execute(INPUTS)
    with pytest.raises(Conflict, match=r"holds another run: seed was 1, is 2"):
        session(tmp_path).execute({**INPUTS, "training_config": {"seed": 2}})
    assert len(manifest(tmp_path)["sessions"]) == 1
    session(tmp_path).execute(INPUTS)
    assert len(manifest(tmp_path)["sessions"]) == 2


def test_what_is_due_every_so_many_steps():
    assert [step for step in range(1, 7) if due(step, 3)] == [3, 6]
    assert not any(due(step, 0) for step in range(3))
