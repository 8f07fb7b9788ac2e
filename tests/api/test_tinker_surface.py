"""Every public method of the unmodified SDK's clients, driven against our own Tinker.

The list is the SDK's own: a method that a release adds and nobody drives here fails the test. Each `…_async` gives what
its namesake gives. What needs torch is driven in the cookbook's environment (`tinker_custom_loss.py`).
"""

import asyncio
import inspect
from collections import defaultdict
from datetime import UTC, datetime
from typing import ClassVar

import numpy as np
import pytest

from tracetune.api.tinker_server import local_tinker
from tracetune.models.load import load_folder

tinker = pytest.importorskip("tinker", reason='needs the SDK: pip install "tracetune[tinker]"')
from tests.api.test_tinker_sdk import quiet_sdk  # noqa: E402
from tinker import types  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")]
CLIENTS = (tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient)
NEED_TORCH = {
    tinker.ServiceClient: {"create_custom_loss"},
    tinker.TrainingClient: {"forward_backward_custom", "forward_backward_custom_async"},
}
NAME = "org/model"
TOKENS = [5, 9, 17, 200, 33]
PROMPT = types.ModelInput.from_ints(TOKENS)
DATA = [
    types.Datum(
        model_input=types.ModelInput.from_ints(TOKENS[:-1]),
        loss_fn_inputs={"target_tokens": types.TensorData.from_numpy(np.asarray(TOKENS[1:]))},
    )
]
DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Driven:
    """A client that notes which of its public methods were called."""

    called: ClassVar[dict[type, set[str]]] = defaultdict(set)

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        self.called[type(self.client)].add(name)
        return getattr(self.client, name)


def public(client):
    """The names of a class's public methods."""
    return {name for name, member in inspect.getmembers(client, callable) if not name.startswith("_")}


def said(future):
    """What a call gives, waited for where it has to be."""
    return future.result() if hasattr(future, "result") else future


def awaited(coroutine):
    """The same of an asynchronous one, whose answer may itself have to be awaited."""

    async def both():
        answer = await coroutine
        return await answer if inspect.isawaitable(answer) else answer

    return asyncio.run(both())


def both_ways(client, name, *given, **named):
    """What a method and its asynchronous namesake give: the same."""
    answer = said(getattr(client, name)(*given, **named))
    assert awaited(getattr(client, f"{name}_async")(*given, **named)) == answer
    return answer


@pytest.fixture
def service(tmp_path, small_model, monkeypatch):
    """A client of a server that serves a small model by the name under which the client finds its tokenizer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).parent.mkdir()
    (tmp_path / NAME).symlink_to(small_model)
    Driven.called.clear()
    with quiet_sdk(), local_tinker(aliases={NAME: str(small_model)}, data_dir=tmp_path / "tinker"):
        yield Driven(tinker.ServiceClient())


def test_every_public_method_is_driven(service, small_model):
    trainer = drive_service(service)
    saved = drive_trainer(trainer)
    drive_sampler(service, saved, load_folder(small_model))
    drive_rest(service, trainer, saved)
    drive_what_is_the_clouds(service, saved)
    said(service.close("success"))
    for client in CLIENTS:
        assert public(client) == Driven.called[client] | NEED_TORCH.get(client, set()), client.__name__


def drive_service(service):
    """Clients of every kind; a training client of a model that took a step."""
    offered = both_ways(service, "get_server_capabilities").supported_models
    assert NAME in [each.model_name for each in offered]
    assert service.get_console_url().startswith("https://")
    # Usage is not reported: the environment of a server of one's own says so.
    assert service.get_telemetry() is None
    first = said(service.create_lora_training_client(NAME, rank=2, seed=1))
    again = awaited(service.create_lora_training_client_async(NAME, rank=2, seed=1))
    assert said(first.forward(DATA, "cross_entropy")).metrics == said(again.forward(DATA, "cross_entropy")).metrics
    trainer = Driven(first)
    loss = said(trainer.forward_backward(DATA, "cross_entropy")).metrics
    assert awaited(trainer.forward_backward_async(DATA, "cross_entropy")).metrics == loss
    said(trainer.optim_step(types.AdamParams(learning_rate=1e-2)))
    return trainer


def drive_trainer(trainer):
    """Steps, states and weights; the paths of a state and of weights to sample from."""
    assert both_ways(trainer, "get_info").model_data.model_name == NAME
    assert (trainer.get_console_url().startswith("https://"), trainer.get_telemetry()) == (True, None)
    assert trainer.get_tokenizer().encode("2 + 3")
    state = said(trainer.save_state("state")).path
    before = said(trainer.forward(DATA, "cross_entropy")).metrics
    assert awaited(trainer.forward_async(DATA, "cross_entropy")).metrics == before
    awaited(trainer.forward_backward_async(DATA, "cross_entropy"))
    awaited(trainer.optim_step_async(types.AdamParams(learning_rate=1e-2)))
    moved = said(trainer.forward(DATA, "cross_entropy")).metrics
    later = awaited(trainer.save_state_async("later")).path
    assert moved["loss:sum"] < before["loss:sum"]
    for name, path, found in (
        ("load_state", state, before),
        ("load_state_async", later, moved),
        ("load_state_with_optimizer", state, before),
        ("load_state_with_optimizer_async", later, moved),
    ):
        loaded = getattr(trainer, name)(path)
        _ = awaited(loaded) if inspect.iscoroutine(loaded) else said(loaded)
        assert said(trainer.forward(DATA, "cross_entropy")).metrics == found, name
    weights = said(trainer.save_weights_for_sampler("weights")).path
    twin = awaited(trainer.save_weights_for_sampler_async("twin")).path
    external = said(trainer.save_weights_external("external")).path
    awaited(trainer.save_weights_external_async("external-twin"))
    samplers = [
        said(trainer.create_sampling_client(weights)),
        awaited(trainer.create_sampling_client_async(twin)),
        said(trainer.save_weights_and_get_sampling_client()),
        awaited(trainer.save_weights_and_get_sampling_client_async()),
    ]
    scores = [said(each.compute_logprobs(PROMPT)) for each in samplers]
    assert scores[1:] == scores[:-1]
    return {"state": state, "weights": weights, "twin": twin, "external": external, "scores": scores[0]}


def drive_sampler(service, saved, model):
    """Samplers of the base, of saved weights and of another's handle."""
    plain = said(service.create_sampling_client(base_model=NAME))
    sampler = Driven(awaited(service.create_sampling_client_async(model_path=saved["weights"])))
    assert both_ways(sampler, "compute_logprobs", PROMPT) == saved["scores"] != said(plain.compute_logprobs(PROMPT))
    asked = types.SamplingParams(max_tokens=4, seed=3, stop=[])
    drawn = said(sampler.sample(PROMPT, 2, asked)), awaited(sampler.sample_async(PROMPT, 2, asked))
    one, other = ([(each.tokens, each.logprobs) for each in answer.sequences] for answer in drawn)
    assert one == other
    assert [len(tokens) for tokens, _ in one] == [4, 4]
    assert both_ways(sampler, "get_base_model") == NAME
    assert sampler.get_tokenizer().encode("2 + 3") == model.tokenizer.encode_text("2 + 3")
    assert sampler.get_telemetry() is None
    # What the SDK calls by itself when it is told to wait; it says so in a log, and no more.
    sampler.on_queue_state_change(tinker.lib.api_future_impl.QueueState.ACTIVE, None)
    handed = sampler.from_sampler_handle(sampler.get_sampler_handle())
    made = said(sampler.create(service.client.holder, model_path=saved["weights"]))
    for other in (handed, made):
        assert said(other.compute_logprobs(PROMPT)) == saved["scores"]
    for name in ("create_training_client_from_state", "create_training_client_from_state_with_optimizer"):
        one = said(getattr(service, name)(saved["state"]))
        other = awaited(getattr(service, f"{name}_async")(saved["state"]))
        assert said(one.forward(DATA, "cross_entropy")).metrics == said(other.forward(DATA, "cross_entropy")).metrics


def drive_rest(service, trainer, saved):
    """What is on record, lent and deleted."""
    rest = Driven(service.create_rest_client())
    run, session = trainer.client.model_id, trainer.client.model_id.partition(":")[0]
    assert said(rest.get_server_capabilities()).supported_models
    assert session in both_ways(rest, "list_sessions").sessions
    assert run in both_ways(rest, "get_session", session).training_run_ids
    assert run in {each.training_run_id for each in both_ways(rest, "list_training_runs").training_runs}
    found = both_ways(rest, "get_training_run", run)
    assert both_ways(rest, "get_training_run_by_tinker_path", saved["state"]) == found
    assert said(rest.get_weights_info_by_tinker_path(saved["state"])).lora_rank == 2
    sampler = said(service.create_sampling_client(base_model=NAME))
    assert both_ways(rest, "get_sampler", sampler._sampling_session_id).base_model == NAME
    urls = [said(rest.get_external_weights_urls(saved["external"])).urls]
    urls.append(awaited(rest.get_external_weights_urls_async(saved["external"])).urls)
    assert urls[0].keys() == urls[1].keys() != set()

    def shown(path):
        listed = {each.tinker_path: each for each in both_ways(rest, "list_user_checkpoints").checkpoints}
        assert path not in listed or listed[path] in both_ways(rest, "list_checkpoints", run).checkpoints
        return listed.get(path)

    both_ways(rest, "publish_checkpoint_from_tinker_path", saved["state"])
    both_ways(rest, "set_checkpoint_ttl_from_tinker_path", saved["state"], 7200)
    assert (shown(saved["state"]).public, shown(saved["state"]).expires_at is None) == (True, False)
    both_ways(rest, "unpublish_checkpoint_from_tinker_path", saved["state"])
    assert shown(saved["state"]).public is False
    said(rest.delete_checkpoint_from_tinker_path(saved["weights"]))
    awaited(rest.delete_checkpoint_from_tinker_path_async(saved["twin"]))
    said(rest.delete_checkpoint(run, "weights/state"))
    awaited(rest.delete_checkpoint_async(run, "weights/later"))
    assert [shown(saved[name]) for name in ("weights", "twin", "state")] == [None] * 3


def drive_what_is_the_clouds(service, saved):
    """Accounts, projects and bills: refused in words, by the server or before it by the SDK."""
    rest = Driven(service.create_rest_client())
    of_the_cloud = {
        "assign_session_project": ("s", "p"),
        "copy_weights": (saved["external"], "p"),
        "export_session_trace": ("s",),
        "get_audit_log": (),
        "get_billing_usage": (DAY, DAY),
        "get_current_checkpoint_storage_usage": (),
    }
    words = "not served by a Tinker of one's own"
    for name, given in of_the_cloud.items():
        with pytest.raises(tinker.APIStatusError, match=words):
            said(getattr(rest, name)(*given))
        with pytest.raises(tinker.APIStatusError, match=words):
            awaited(getattr(rest, f"{name}_async")(*given))
    with pytest.raises(tinker.APIStatusError, match=words):
        said(rest.search_sessions(types.SessionSearchRequest()))
    with pytest.raises(RuntimeError, match="plain API key"):
        said(rest.whoami())
    with pytest.raises(ValueError, match="TINKER_PROJECT_ID"):
        said(service.copy_weights(saved["external"]))
    assert rest.get_telemetry() is None
