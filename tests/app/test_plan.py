"""A plan needs no weights; what does not fit is refused before it begins, with the change that fits."""

import io
import json
import re

import jax
import pytest
from tests.models.gemma3_27b import write_27b
from typer.testing import CliRunner

from tracetune.app import memory
from tracetune.app.blueprint import blueprint
from tracetune.app.memory import SKIP, changes, check_memory, first_change, needed_bytes, phases
from tracetune.app.plan import facts, parse_memory, plan, read_config
from tracetune.app.sft import run_sft
from tracetune.app.tinker_prices import PRICES, Tokens, bill
from tracetune.cli.main import app
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError, NotFound
from tracetune.engine.devices import Room
from tracetune.engine.plan import peak
from tracetune.models.hf import load_full
from tracetune.models.tiny import tiny_arch

pytestmark = pytest.mark.slow


@pytest.fixture
def index_of_27b(tmp_path):
    """A checkpoint's config and index, its shards nowhere."""
    return write_27b(tmp_path)


def room_of(monkeypatch, num_bytes: int) -> None:
    monkeypatch.setattr(memory, "room", lambda: Room(num_bytes, "of a test"))


@pytest.mark.slow
def test_words_are_read_as_the_commands_read_them(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("model: {name: tiny, max_length: 64}\n")
    config = read_config([str(file), "batch_size=2"])
    assert (config.model.max_length, config.training.batch_size) == (64, 2)
    assert isinstance(read_config(["model=tiny", "+experiment=quick_test"]), GrpoConfig)
    assert isinstance(read_config(["grpo.num_generations=8"]), GrpoConfig)
    assert read_config([], model="qwen3:8b").model.name == "qwen3:8b"
    with pytest.raises(InputError, match="did you mean"):
        read_config(["batch_sise=2"])
    for command in ("sft", "train"):
        with pytest.raises(InputError, match=f"plan: takes the words after {command}"):
            read_config([command, "model=tiny"])


def test_memory_is_read_in_both_kinds_of_units():
    assert parse_memory("24GiB") == 24 * 2**30
    assert parse_memory("80GB") == 80 * 10**9
    for wrong in ("lots", "24 parsec", "-1GiB", "GiB"):
        with pytest.raises(InputError, match="--memory"):
            parse_memory(wrong)


def test_an_index_alone_is_enough_and_its_weights_are_never_looked_for(index_of_27b):
    assert blueprint(str(index_of_27b)).arch.num_layers == 62
    with pytest.raises(NotFound):
        load_full(index_of_27b.parent, name="27b")
    config = read_config(["steps=1"], model=str(index_of_27b))
    needed = needed_bytes(config, blueprint(str(index_of_27b)).arch, 80 * 2**30)
    assert needed > 27e9 * 16


@pytest.mark.long
def test_a_plan_tells_memory_time_and_the_change_that_fits():
    config = load_sft_config(None, ["model=tiny", "steps=10", "batch_size=4", "model.max_length=256"])
    made = plan(config)
    assert made.fits
    assert made.change is None
    assert set(facts(made)) == {"model", "steps", "  update", "memory", "room", "time"}
    tight = plan(config, memory=made.num_bytes - 1)
    assert tight.fits is False
    assert tight.change is not None
    assert needed_bytes(tight.change.config, tiny_arch(), made.num_bytes - 1) < made.num_bytes
    assert "does not fit" in facts(tight)["room"]
    assert json.loads(CliRunner().invoke(app, ["plan", "model=tiny", "steps=1", "--json"]).output)["fits"] is True


def test_changes_that_train_the_same_come_first():
    start = {"model": "tiny", "batch_size": 4}
    tried = list(changes(load_sft_config(start)))
    firsts = [change.same for change in tried]
    assert firsts.index(False) == 3
    assert tried[0].words == "training.batch_size=2 training.gradient_accumulation_steps=2"
    assert tried[2].words.endswith("training.gradient_checkpointing=true")
    assert tried[3].words == "model.lora.r=16"
    for change in tried:
        # What is told is what was tried.
        assert load_sft_config(start, change.words.split()) == change.config


@pytest.mark.slow
def test_changes_of_a_policy_are_words_of_its_command():
    start = ["model=tiny", "model.lora_rank=null"]
    for change in changes(read_config(["grpo.beta=0.1", *start])):
        assert read_config(["grpo.beta=0.1", "model=tiny", *change.words.split()]) == change.config


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(index_of_27b, monkeypatch, tmp_path, sums):
    config = load_sft_config({"model": str(index_of_27b.parent), "steps": 1})
    room_of(monkeypatch, 24 * 2**30)
    monkeypatch.setattr(memory, "first_change", lambda *_: None)
    with pytest.raises(InputError, match=rf"memory: .* needs .* got 24\.0 GiB of a test; .*{SKIP}=1"):
        run_sft(config, data=sums, output=tmp_path / "run", stream=io.StringIO())
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(SKIP, "1")
    # The control: without the check the run goes on to the weights, which are not there.
    with pytest.raises(NotFound):
        run_sft(config, data=sums, output=tmp_path / "run", stream=io.StringIO())


@pytest.mark.long
def test_the_refusal_names_a_change_and_the_run_with_it_passes(monkeypatch):
    config = load_sft_config(None, ["model=tiny", "batch_size=2", "model.max_length=512"])
    full = peak(phases(config, tiny_arch()))
    room_of(monkeypatch, full)
    check_memory(config)
    room_of(monkeypatch, full - 1)
    change = first_change(config, tiny_arch(), Room(full - 1, ""))
    assert change is not None
    monkeypatch.setattr(memory, "first_change", lambda *_: change)
    with pytest.raises(InputError, match=re.escape(f"this fits: {change.words}; ")):
        check_memory(config)
    check_memory(change.config)


@pytest.mark.slow
def test_a_small_model_is_let_through_without_compiling(monkeypatch):
    room_of(monkeypatch, 8 * 2**30)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("compiled"))
    check_memory(load_sft_config(None, ["model=tiny"]))
    check_memory(read_config(["model=tiny", "+experiment=quick_test"]))


def test_tinker_is_billed_by_tokens_and_an_unknown_price_is_said_to_be():
    assert bill("Qwen/Qwen3-8B", Tokens(1_000_000, 1_000_000, 1_000_000)) == pytest.approx(0.195 + 0.60 + 0.44)
    assert bill("Qwen/Qwen3.6-35B-A3B", Tokens(0, 10, 10)) is None
    assert bill("tiny", Tokens(1, 1, 1)) is None
    assert all(any(price) for price in PRICES.values())
    made = plan(load_sft_config(None, ["model=tiny", "steps=10", "batch_size=2", "backend=tinker"]))
    assert (
        "at most 0 tokens to read, 0 to sample, 10,240 to train on; the price of tiny is not known"
        in facts(made)["cost"]
    )


def test_a_device_that_is_not_known_is_named():
    with pytest.raises(InputError, match=r"--device: must be one of .*h100"):
        plan(load_sft_config(None, ["model=tiny"]), device="abacus")
