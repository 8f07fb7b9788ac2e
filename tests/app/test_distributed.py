"""Two real processes on loopback: they train as one does, say which of them was lost, and go on exactly."""

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tests.forked import Command

from tracetune.app.manifest import folder_hashes
from tracetune.app.runs import find_manifest, read_metrics
from tracetune.app.sft import run_sft
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError, Unavailable
from tracetune.engine import hosts
from tracetune.engine.checkpoint import list_checkpoints

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NUM_STEPS, SAVE_STEPS = 60, 10
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture(scope="module")
def settings(small_settings) -> dict[str, Any]:
    training = {**small_settings["training"], "num_steps": NUM_STEPS, "save_steps": SAVE_STEPS}
    return {**small_settings, "training": training}


@pytest.fixture(scope="module")
def config(settings, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "sft.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(config: Path, data: Path, run: Path) -> list[Command]:
    """The same command twice, with the environment that a launcher would give."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = ["sft", "--config", config, "--data", data, "--output", run, 'model.mesh_shape=[[2,1],["fsdp","tp"]]']
    return [
        Command(
            [str(word) for word in words],
            told=run.parent / f"{run.name}-{rank}-{address[-5:]}.txt",
            env=os.environ | dict(zip(VARIABLES, (address, "2", str(rank)), strict=True)),
        )
        for rank in (0, 1)
    ]


def finish(processes: list[Command]) -> None:
    for process in processes:
        code, told = process.finish(timeout=400)
        assert code == 0, told[-2000:]


@pytest.fixture(scope="module")
def whole(config, sums, tmp_path_factory) -> Path:
    """A run of two processes that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start(config, sums, run))
    return run


@pytest.mark.long
def test_two_processes_train_as_one_does(settings, sums, whole, tmp_path):
    run_sft(load_sft_config(settings), data=sums, output=tmp_path / "one")
    one, two = read_metrics(tmp_path / "one" / "metrics.jsonl"), read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for left, right in zip(one, two, strict=True):
        assert abs(left["loss"] - right["loss"]) < 1e-5 * max(1, left["step"])
        assert (left["tokens"], left["targets"]) == (right["tokens"], right["targets"])
    assert (whole / "train.log").read_text().count("finished after step") == 1
    assert len(find_manifest(whole)[1]["sessions"]) == 1
    written = {path.name[:11] for path in list_checkpoints(whole / "checkpoints")[-1].glob("*.safetensors")}
    assert written == {"state-00000", "state-00001"}


@pytest.mark.long
def test_an_adapter_and_the_loss_of_an_eval_file_are_those_of_one_process(small_settings, sums, tmp_path):
    settings = {
        "model": {**small_settings["model"], "lora": {"r": 2, "alpha": 4}},
        "training": {**small_settings["training"], "num_steps": 5, "eval_steps": 2},
        "data": {"eval_file": str(sums)},
    }
    (tmp_path / "lora.yaml").write_text(yaml.safe_dump(settings))
    finish(start(tmp_path / "lora.yaml", sums, tmp_path / "two"))
    run_sft(load_sft_config(settings), data=sums, output=tmp_path / "one")
    one, two = (
        [row["eval_loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl") if "eval_loss" in row]
        for run in ("one", "two")
    )
    assert len(one) == 3
    assert max(one) - min(one) > 1e-3
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=0)
    adapters = [load_file(tmp_path / run / "checkpoint-final" / "adapter_model.safetensors") for run in ("one", "two")]
    assert all(np.abs(left - adapters[1][name]).max() < 1e-3 for name, left in adapters[0].items())
    assert any(np.abs(left).max() > 1e-2 for name, left in adapters[0].items() if "lora_B" in name)


@pytest.mark.long
def test_a_killed_process_is_named_and_the_same_command_goes_on_exactly(config, sums, whole, tmp_path):
    """Both at once: finding out that a process was lost is waiting."""

    def kill_and_go_on(victim: int) -> None:
        run = tmp_path / f"without-{victim}"
        processes = start(config, sums, run)
        while not list_checkpoints(run / "checkpoints"):
            assert all(process.is_alive() for process in processes)
            time.sleep(0.002)
        processes[victim].kill()
        killed = time.monotonic()
        code, told = processes[1 - victim].finish(timeout=60)
        assert time.monotonic() - killed < 60
        assert code not in (0, -signal.SIGKILL)
        assert f"process {victim} of 2 was lost" in told
        assert processes[victim].finish(timeout=60)[0] == -signal.SIGKILL
        assert not (run / "checkpoint-final").exists()

        finish(start(config, sums, run))
        assert folder_hashes(run / "checkpoint-final") == folder_hashes(whole / "checkpoint-final")
        assert not list((run / "checkpoints").glob(".*.partial"))

    with ThreadPoolExecutor() as pool:
        list(pool.map(kill_and_go_on, (0, 1)))


def seat(monkeypatch, **variables: str) -> hosts.Seat | None:
    for name in (*VARIABLES, "JAX_LOCAL_DEVICE_IDS", "SLURM_STEP_NODELIST", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return hosts.find_seat()


def test_the_environment_says_who_is_who(monkeypatch):
    assert seat(monkeypatch) is None
    alone = dict(zip(VARIABLES, ("h:1", "1", "0"), strict=True))
    assert seat(monkeypatch, **alone) is None
    assert seat(monkeypatch, **alone | {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}) == ("h:1", 4, 3, None)
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[01-02]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    found = seat(monkeypatch, **step, SLURM_LOCALID="0", JAX_LOCAL_DEVICE_IDS="0,1,2")
    assert found == (f"n01:{65535 - 4095 + 7}", 2, 1, [0, 1, 2])


def test_an_environment_that_makes_no_sense_is_refused(monkeypatch):
    with pytest.raises(InputError, match="needs JAX_NUM_PROCESSES and JAX_PROCESS_ID beside it"):
        seat(monkeypatch, JAX_COORDINATOR_ADDRESS="h:1")
    for values in (("h:1", "2", "2"), ("h", "2", "0"), ("h:1", "two", "0")):
        with pytest.raises(InputError, match="must be"):
            seat(monkeypatch, **dict(zip(VARIABLES, values, strict=True)))


def test_grpo_does_not_pretend_to_run_on_several_processes(monkeypatch, tmp_path):
    from tracetune.app.grpo import run_grpo
    from tracetune.config.grpo_schema import GrpoConfig

    seat(monkeypatch, **dict(zip(VARIABLES, ("h:1", "2", "0"), strict=True)))
    with pytest.raises(Unavailable, match="not on several processes"):
        run_grpo(GrpoConfig(), output=tmp_path)


def test_a_mesh_of_other_devices_is_refused_before_anything_is_read(settings, tmp_path):
    config = load_sft_config(settings, ['model.mesh_shape=[[2,2],["fsdp","tp"]]'])
    with pytest.raises(InputError, match=r"model\.mesh_shape .* lays out 4 devices, but there are 1"):
        run_sft(config, data=tmp_path / "absent.jsonl", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_deploy_files_are_sound_and_say_the_same_command():
    script = ROOT / "deploy" / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "srun" in script.read_text()
    jobset = yaml.safe_load((ROOT / "deploy" / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = jobset["spec"]["replicatedJobs"][0]
    pods = job["template"]["spec"]
    assert pods["completionMode"] == "Indexed"
    container = pods["template"]["spec"]["containers"][0]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given.keys() == set(VARIABLES)
    assert int(given["JAX_NUM_PROCESSES"]) == pods["parallelism"] == pods["completions"]
    host = f"{jobset['metadata']['name']}-{job['name']}-0-0.{jobset['spec']['network']['subdomain']}"
    assert given["JAX_COORDINATOR_ADDRESS"] == f"{host}:{container['ports'][0]['containerPort']}"
    sky = yaml.safe_load((ROOT / "deploy" / "skypilot.yaml").read_text())
    assert sky.keys() >= {"num_nodes", "resources", "volumes", "setup", "run"}
    assert subprocess.run(["bash", "-n", "-c", sky["run"]], check=False).returncode == 0
    assert all(name in sky["run"] for name in VARIABLES)
    commands = (script.read_text(), " ".join(container["command"]), sky["run"])
    for words in ("tracetune sft", "--config", "--data", "--output", "model.mesh_shape="):
        assert all(words in command for command in commands)
