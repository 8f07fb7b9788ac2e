"""Supervised runs by a Tinker service, ours on loopback: the losses of a local run, its folder, and how it goes on."""

import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tracetune
from tracetune.app.runs import read_metrics
from tracetune.app.sft import run_sft
from tracetune.backends.local import LocalBackend
from tracetune.backends.tinker import TinkerBackend, unpack
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import LoraSettings, ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.values import Batch, Example
from tracetune.data.pack import make_batch
from tracetune.engine.checkpoint import list_checkpoints
from tracetune.models.load import load_model
from tracetune.models.served import served_model

TOLERANCE = 1e-4
KEY = "tml-local"


def examples(seed: int) -> list[Example]:
    """Of 5 to 20 tokens, the last third of each to be learnt."""
    drawn = np.random.default_rng(seed)
    made = []
    for place in range(5):
        size = int(drawn.integers(5, 20))
        tokens = tuple(drawn.integers(0, 300, size).tolist())
        made.append(Example(tokens, tuple(int(t >= 2 * size // 3) for t in range(size)), f"t-{place}"))
    return made


def packed(seed: int) -> Batch:
    """Three rows: of three examples, of two, and of none."""
    return make_batch([(0, 1, 2), (3, 4), ()], examples(seed), max_length=64, pad_id=0)


def test_packed_rows_come_apart_into_their_examples():
    for seed in range(20):
        found = list(unpack(packed(seed)))
        assert len(found) == 5
        for example, one in zip(examples(seed), found, strict=True):
            assert one.passage.tokens.tolist() == list(example.tokens[:-1])
            assert one.passage.targets.tolist() == list(example.tokens[1:])
            assert one.weights.tolist() == list(example.mask[1:])
    assert not list(unpack(make_batch([()], examples(0), max_length=64, pad_id=0)))


# --- steps beside the local backend's ---


@pytest.fixture(scope="module")
def url(small_model):
    """A Tinker of our own with the small model, for the tests of this file."""
    if find_spec("tinker") is None:
        pytest.skip('no SDK: pip install "tracetune[tinker]"')
    with tracetune.local_tinker(model=str(small_model)) as url:
        yield url


@pytest.fixture
def service(url, small_model):
    """A session with it."""
    with connected(str(small_model), sampled=False, say=print) as service:
        yield service


def sft_config(small_model: Path, **dials: Any) -> SftConfig:
    return SftConfig(
        backend="tinker",
        model=ModelSettings(name=str(small_model), max_length=64, lora=LoraSettings(r=4, **dials)),
        optimizer=OptimizerSettings(
            learning_rate=0.05, warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5, beta2=0.95
        ),
        training=TrainingSettings(seed=11),
    )


def by_service(service: TinkerService, config: SftConfig, num_steps: int = 8) -> TinkerBackend:
    return TinkerBackend(service, served_model(config.model.name), config, num_steps=num_steps)


@pytest.mark.long
@pytest.mark.parametrize(
    "modules",
    [
        LoraSettings().target_modules,
        ("q_proj", "k_proj", "v_proj", "o_proj"),
    ],
)
def test_steps_are_those_of_the_local_backend(service, small_model, tmp_path, modules):
    config = sft_config(small_model, target_modules=modules)
    theirs = by_service(service, config)
    ours = LocalBackend(load_model(str(small_model)), config, num_steps=8)
    losses = []
    for step in range(6):
        batches = [packed(2 * step), packed(2 * step + 1)]
        got, wanted = theirs.train_step(batches), ours.train_step(batches)
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE)
        losses.append(got.loss)
    assert len(set(losses)) == 6
    assert theirs.eval_loss([packed(99)]) == pytest.approx(ours.eval_loss([packed(99)]), rel=TOLERANCE)
    theirs.export(tmp_path / "adapter")
    again = load_model(str(tmp_path / "adapter"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again.lora, ours.model.lora)
    assert float(np.abs(again.lora["layers"]["q_proj"]["b"]).max()) > 0
    assert service.usage.train == sum(int((packed(seed).segments_BT > 0).sum()) for seed in range(12))


@pytest.mark.long
def test_the_comparison_sees_another_schedule(service, small_model):
    config = sft_config(small_model)
    theirs = by_service(service, config)
    ours = LocalBackend(load_model(str(small_model)), config, num_steps=4)
    apart = [abs(theirs.train_step([packed(0)]).loss - ours.train_step([packed(0)]).loss) for _ in range(5)]
    # Rates part at the fourth step, and the loss of a step is that before its update.
    assert max(apart[:4]) < TOLERANCE
    assert apart[4] > TOLERANCE


class Recorded(TinkerService):
    """A session that keeps what is sent and what is waited for, in order."""

    def submit(self, doing, send):
        future = super().submit(doing, send)
        self.seen.append(("sent", future))
        return future

    def wait(self, doing, future):
        self.seen.append(("awaited", future))
        return super().wait(doing, future)


@pytest.mark.slow
def test_a_step_is_submitted_whole_before_any_of_it_is_awaited(service, small_model):
    backend = by_service(service, sft_config(small_model))
    assert backend.client is not None
    service.__class__, service.seen = Recorded, []
    backend.train_step([packed(0)])
    assert [kind for kind, _ in service.seen] == ["sent", "sent", "awaited", "awaited"]
    assert [future for _, future in service.seen[:2]] == [future for _, future in service.seen[2:]]


@pytest.mark.slow
def test_a_restored_adapter_goes_on_as_if_it_had_never_stopped(service, small_model, tmp_path):
    config = sft_config(small_model)
    whole = by_service(service, config)
    assert whole.restore(tmp_path, warn=pytest.fail) is None
    for step in range(2):
        whole.train_step([packed(step)])
    whole.snapshot(tmp_path / "step-000002", {"position": [2]})
    spent = service.usage
    more = [whole.train_step([packed(step)]) for step in range(2, 5)]
    resumed = by_service(service, config)
    assert resumed.restore(tmp_path, warn=pytest.fail) == {"position": [2]}
    assert service.usage == spent
    assert [resumed.train_step([packed(step)]) for step in range(2, 5)] == more
    # The control: weights without the optimizer's state go elsewhere.
    path = json.loads((tmp_path / "step-000002" / "manifest.json").read_text())["meta"]["tinker"]["path"]
    cold = by_service(service, config)
    cold._client = service.ask("cold", lambda clients: clients.create_training_client_from_state(path))
    cold.num_taken = 2
    assert [cold.train_step([packed(step)]) for step in range(2, 5)] != more


@pytest.mark.slow
def test_a_snapshot_that_the_service_has_no_more_is_told_with_its_path_and_date(service, small_model, tmp_path):
    backend = by_service(service, sft_config(small_model))
    backend.train_step([packed(0)])
    backend.snapshot(tmp_path / "step-000001", {})
    path = json.loads((tmp_path / "step-000001" / "manifest.json").read_text())["meta"]["tinker"]["path"]
    assert by_service(service, sft_config(small_model)).restore(tmp_path, warn=pytest.fail) == {}
    service.rest("forgetting", lambda rest: rest.delete_checkpoint_from_tinker_path(path))
    with pytest.raises(InputError, match=rf"going on from {path}, which the service keeps until 20\d\d-") as caught:
        by_service(service, sft_config(small_model)).restore(tmp_path, warn=pytest.fail)
    assert "the service refuses it" in str(caught.value)


@pytest.mark.slow
def test_an_export_of_a_model_that_is_not_here_says_which_it_needs(service, small_model, tmp_path):
    backend = by_service(service, sft_config(small_model))
    backend.export(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "checkpoint.json",
    }
    assert load_model(str(tmp_path / "adapter")).base_name == str(small_model)
    # The copy that was made for the download is gone.
    left = service.rest("what is left", lambda rest: rest.list_user_checkpoints()).checkpoints
    assert not [each.tinker_path for each in left if "external_weights" in each.tinker_path]
    backend.model = backend.model._replace(name="/gone/model")
    backend.export(tmp_path / "other")
    with pytest.raises(NotFound, match="needs the base model it was trained on"):
        load_model(str(tmp_path / "other"))


# --- runs ---


def run_settings(small_model: Path, sums: Path, **model: Any) -> dict[str, Any]:
    training = {"num_steps": 6, "learning_rate": 0.01, "batch_size": 4, "logging_steps": 1, "save_steps": 2, "seed": 7}
    return {
        "backend": "tinker",
        "model": {"name": str(small_model), "max_length": 64, "lora": {"r": 4}, **model},
        "training": {**training, "eval_steps": 3},
        "data": {"train_file": str(sums), "eval_file": str(sums)},
    }


@pytest.mark.long
def test_a_run_by_a_service_leaves_the_folder_of_any_run(url, small_model, sums, tmp_path, capfd):
    screen = io.StringIO()
    result = run_sft(load_sft_config(run_settings(small_model, sums)), output=tmp_path / "run", stream=screen)
    assert (result.status, result.num_steps) == ("finished", 6)
    ours = load_sft_config({**run_settings(small_model, sums), "backend": "local"})
    local = run_sft(ours, output=tmp_path / "local", stream=io.StringIO())
    rows, wanted = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "local"))
    extra = {f"tinker_tokens_{kind}" for kind in ("prefill", "cached", "sample", "train")}
    for mine, theirs in zip(wanted, rows, strict=True):
        assert theirs.keys() - mine.keys() == extra
        for name in mine.keys() - {"timestamp", "tokens_per_second"}:
            assert theirs[name] == pytest.approx(mine[name], rel=TOLERANCE), name
    assert rows[-1]["tinker_tokens_train"] == rows[-1]["tokens"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in local.folder.iterdir()}
    assert {path.name for path in result.checkpoint.iterdir()} == {path.name for path in local.checkpoint.iterdir()}
    manifest = json.loads((tmp_path / "run" / "run_manifest.json").read_text())
    assert manifest["training_config"]["backend"] == "tinker"
    assert manifest["backend_versions"]["tinker"].startswith("0.38")
    assert manifest["base_model_hash"] is None
    assert load_model(str(tmp_path / "run")).lora_settings.r == 4
    assert f"is trained by the service at {url}, whose prices are not known: at most" in screen.getvalue()
    # The key is in nothing that was written or said.
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 8
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in screen.getvalue()
    assert KEY not in "".join(capfd.readouterr())


class Stopper(io.StringIO):
    """A screen whose reader asks the run to stop as soon as it shows `at`."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def write(self, text: str) -> int:
        import os
        import signal

        if self.at in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


@pytest.mark.long
def test_a_run_that_was_stopped_ends_as_one_that_was_not(url, small_model, sums, tmp_path):
    config = load_sft_config(run_settings(small_model, sums))
    whole = run_sft(config, output=tmp_path / "whole", stream=io.StringIO())
    assert run_sft(config, output=tmp_path / "part", stream=Stopper("step 3")).status == "interrupted"
    assert [folder.name for folder in list_checkpoints(tmp_path / "part" / "checkpoints")][-1] == "step-000003"
    screen = io.StringIO()
    part = run_sft(config, output=tmp_path / "part", stream=screen)
    assert "resumed after step 3" in screen.getvalue()
    rows, wanted = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("part", "whole"))
    timing = ("timestamp", "tokens_per_second")
    bare = [[{k: v for k, v in row.items() if k not in timing} for row in each] for each in (rows, wanted)]
    assert bare[0] == bare[1]
    weights = "adapter_model.safetensors"
    assert (part.checkpoint / weights).read_bytes() == (whole.checkpoint / weights).read_bytes()
    with pytest.raises(Conflict, match="was 'tinker', is 'local'"):
        run_sft(replace(config, backend="local"), output=tmp_path / "part", stream=io.StringIO())


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_a_folder_is_made(url, small_model, sums, tmp_path):
    def refused(told: str, **model: Any) -> None:
        config = load_sft_config(run_settings(small_model, sums, **model))
        with pytest.raises(InputError, match=told):
            run_sft(config, output=tmp_path / "run", stream=io.StringIO())
        assert not (tmp_path / "run").exists()

    refused("the service has no Qwen/Qwen3-8B; it trains ", name="qwen3:8b")
    refused("the service trains adapters only", lora=None)
    refused("lora alpha must be 32", lora={"r": 4, "alpha": 8})
