"""A run through a network that loses, refuses, cuts and delays: every step is taken once, and nothing differs."""

import logging
import os
import random
import signal
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.api.faulty import KINDS, faulty

from tracetune.api.tinker_server import local_tinker

tinker = pytest.importorskip("tinker", reason='needs the SDK: pip install "tracetune[tinker]"')
from tinker import types  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")]
NUM_STEPS, NUM_FAULTS, AHEAD = 200, 500, 50
# The SDK waits a second before it sends a request again, and after some faults of a poll: those are the fewer.
OF_REQUESTS = 20
POLL_KINDS = [*KINDS, *("408", "500", "502", "503") * 5]


@pytest.fixture(autouse=True)
def quiet_sdk(caplog):
    """What the SDK warns of is expected here."""
    with caplog.at_level(logging.CRITICAL, logger="tinker"):
        yield


def data(step):
    tokens = np.random.default_rng(step).integers(3, 1000, 6).tolist()
    inputs = {"target_tokens": types.TensorData.from_numpy(np.asarray(tokens[1:]))}
    return [types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)]


def train(url, root):
    """Losses of all steps, then weights and optimizer at the end; some steps are always under way."""
    client = tinker.ServiceClient(base_url=url).create_lora_training_client("tiny", rank=2, seed=5)
    losses = []
    for first in range(0, NUM_STEPS, AHEAD):
        under_way = []
        for step in range(first, first + AHEAD):
            told = client.forward_backward(data(step), "cross_entropy")
            under_way.append((told, client.optim_step(types.AdamParams(learning_rate=1e-3))))
        for told, taken in under_way:
            losses.append(told.result().metrics["loss:sum"])
            taken.result()
    path = client.save_state("end").result().path
    run, kind, name = path.removeprefix("tinker://").split("/")
    folder = root / "runs" / run.replace(":", "_") / kind / name
    return losses, {key: array for file in folder.glob("*.safetensors") for key, array in load_file(file).items()}


def choices(seed):
    """Faults for half of the polls until they are used up, and for some of the requests that train."""
    draw, left = random.Random(seed), {"polls": NUM_FAULTS - OF_REQUESTS, "requests": OF_REQUESTS}
    in_turn = cycle(KINDS)  # all of them: drawn, one would be left out now and then

    def choose(path):
        kind = "polls" if "retrieve_future" in path else "requests"
        trains = kind == "polls" or "forward_backward" in path or "optim_step" in path
        if not trains or not left[kind] or draw.random() > (0.7 if kind == "polls" else 0.15):
            return None
        left[kind] -= 1
        # For a poll 409 is an answer, not a failure on the way: the SDK gives up, as it should.
        return next(in_turn) if kind == "requests" else draw.choice([each for each in POLL_KINDS if each != "409"])

    return choose


def test_five_hundred_faults_change_nothing_in_two_hundred_steps(tmp_path):
    with local_tinker(data_dir=tmp_path) as url:
        expected, arrays = train(url, tmp_path)
        with faulty(url, choices(7)) as (through, proxy):
            losses, broken = train(through, tmp_path)
    assert sum(proxy.faults.values()) == NUM_FAULTS
    assert set(proxy.faults) == set(KINDS)
    assert losses == expected
    assert broken["['moments']['steps']"] == NUM_STEPS
    assert all(np.array_equal(arrays[name], broken[name]) for name in arrays)


@pytest.fixture
def serve():
    """Starts a server on a home; none outlives the test."""
    begun = []

    def start(home: Path) -> tuple[subprocess.Popen, str]:
        process, url = _serve(home)
        begun.append(process)
        return process, url

    yield start
    for process in begun:
        process.kill()
        process.wait()


def _serve(home: Path) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "tracetune", "serve", "--tinker", "--port", "0", "--data-dir", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert "Tinker at " in line, line
    return process, line.split()[2]


def test_a_killed_server_is_gone_on_with_from_its_checkpoints(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-local")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    first, url = serve(tmp_path)
    client = tinker.ServiceClient(base_url=url).create_lora_training_client("tiny", rank=2, seed=5)
    for step in range(3):
        client.forward_backward(data(step), "cross_entropy").result()
        client.optim_step(types.AdamParams(learning_rate=1e-3)).result()
    kept = client.save_state("kept", ttl_seconds=7200).result().path
    sampler = client.save_weights_for_sampler("kept").result().path
    expected = client.forward(data(9), "cross_entropy").result().metrics["loss:sum"]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second, url = serve(tmp_path)
    service = tinker.ServiceClient(base_url=url)
    resumed = service.create_training_client_from_state_with_optimizer(kept)
    assert resumed.forward(data(9), "cross_entropy").result().metrics["loss:sum"] == expected
    asked = service.create_sampling_client(model_path=sampler)
    assert len(asked.compute_logprobs(types.ModelInput.from_ints([5, 6, 7])).result()) == 3
    listed = {each.tinker_path for each in service.create_rest_client().list_user_checkpoints().result().checkpoints}
    assert listed == {kept, sampler}
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=20) == 0
