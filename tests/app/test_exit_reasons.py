"""Why a run ended: want of memory is told from everything else by evidence, with the dials to lower."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracetune.app import pulse
from tracetune.app.exit_reasons import Death, reason_of_death, reason_of_error
from tracetune.core.errors import InputError

SFT = {"kind": "sft", "config": {"training": {"batch_size": 8}, "model": {"max_length": 512}}}
GRPO = {
    "kind": "grpo",
    "config": {
        "training": {"micro_batch_size": 4},
        "grpo": {"num_generations": 16},
        "generation": {"max_generation_steps": 512},
    },
}
KILLED = -signal.SIGKILL


@pytest.mark.parametrize(
    ("death", "is_memory"),
    [
        (Death(KILLED, oom_kills=(3, 4)), True),
        (Death(None, oom_kills=(3, 4)), True),
        (Death(KILLED, oom_kills=(3, 3)), False),
        (Death(KILLED, oom_kills=(None, None)), False),
        (Death(KILLED, oom_kills=(3, 3), log="out of memory, said a step long ago"), False),
        (Death(-signal.SIGSEGV, oom_kills=(3, 4)), False),
        (Death(-signal.SIGABRT, log="what():  std::bad_alloc\n"), True),
        (Death(-signal.SIGABRT, log="a failed check\n"), False),
        (Death(1, log="XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes\n"), True),
        (Death(1, log="ValueError: no\n"), False),
    ],
)
def test_want_of_memory_is_named_only_with_evidence(death, is_memory):
    told, is_hopeless = reason_of_death(death, SFT)
    assert told.startswith("out of memory: ") == is_hopeless == is_memory


def test_want_of_memory_names_the_peak_and_the_dials_of_its_kind():
    told, _ = reason_of_death(Death(KILLED, (0, 1), peak_rss_bytes=3 * 2**30), SFT)
    assert told == (
        "out of memory: the kernel killed the process for it; the process had 3.00 GiB at most; lower "
        "training.batch_size (is 8) or model.max_length (is 512); training.gradient_checkpointing=true and "
        "model.lora.r=16 take less memory too"
    )
    told = reason_of_error(
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), GRPO, home=Path("h"), peak_rss_bytes=0
    )
    assert "training.micro_batch_size (is 4) or grpo.num_generations (is 16)" in told
    evaluation = {"kind": "evaluation", "config": {"batch_size": 32, "max_tokens": 512}}
    told = reason_of_error(MemoryError(), evaluation, home=Path("h"), peak_rss_bytes=0)
    assert told.endswith("lower batch_size (is 32) or max_tokens (is 512)")


def test_other_ends_are_told_as_they_were():
    told, _ = reason_of_death(Death(-signal.SIGSEGV, log="step 1\nFatal Python error: Segmentation fault\n\n"), SFT)
    assert told == "its process was ended by SIGSEGV; its last words: Fatal Python error: Segmentation fault"
    assert reason_of_death(Death(3), SFT)[0] == "its process ended with exit code 3"
    assert "nobody saw" in reason_of_death(Death(None), SFT)[0]
    home = Path("/srv/home")
    ours = reason_of_error(InputError("/srv/home/runs/x: is bad"), SFT, home=home, peak_rss_bytes=0)
    assert ours == "runs/x: is bad"
    assert reason_of_error(KeyError("a"), SFT, home=home, peak_rss_bytes=0) == "KeyError: 'a'"


def test_a_pulse_tells_a_living_process_from_one_that_is_gone(tmp_path: Path):
    place = repr(str(tmp_path))
    write = f"import pathlib, tracetune.app.pulse as p; p.write_pulse(pathlib.Path({place}), 'me')"
    with subprocess.Popen([sys.executable, "-c", write]) as process:
        assert process.wait() == 0
    assert pulse.is_gone(tmp_path, "me")
    assert not pulse.is_gone(tmp_path, "somebody else")
    pulse.write_pulse(tmp_path, "me")
    assert not pulse.is_gone(tmp_path, "me")
    assert pulse.read_pulse(tmp_path)["pid"] == os.getpid()
