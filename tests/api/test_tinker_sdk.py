"""The unmodified SDK against our own Tinker: the numbers behind its clients, and what they refuse."""

import logging
import os
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

import tracetune
from tracetune.api.tinker_server import local_tinker
from tracetune.app.tinker.samples import SLOTS
from tracetune.engine.sampler import Sampling, generate_groups
from tracetune.engine.scoring import score_tokens
from tracetune.models.load import load_folder, load_model
from tracetune.objectives.token_losses import LOSSES

tinker = pytest.importorskip("tinker", reason='needs the SDK: pip install "tracetune[tinker]"')
from tinker import types  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")]
ROWS = ["2 + 3 = 5", "10 - 4 = 6, and that is all there is", "7 * 8 = 56 because"]


class Home:
    """A server of this module, a client, and where its checkpoints lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.service = tinker.ServiceClient()
        self.rest = self.service.create_rest_client()
        self.model = load_model("tiny")

    def trainer(self, name="tiny", **changes):
        config = {"rank": 4, "seed": 3, "train_unembed": True} | changes
        return self.service.create_lora_training_client(name, **config)

    def gradient(self, client):
        """What was added up since the last step: a step that moves nothing, saved, has it as its mean."""
        client.optim_step(types.AdamParams(learning_rate=0.0, beta1=0.0, beta2=0.0)).result()
        path = client.save_state(f"g{time.monotonic_ns()}").result().path
        return {name: array for name, array in self.arrays(path).items() if "moments']['mean" in name}

    def arrays(self, path):
        from safetensors.numpy import load_file

        run, kind, name = path.removeprefix("tinker://").split("/")
        folder = self.root / "runs" / run.replace(":", "_") / kind / name
        return {key: array for file in folder.glob("*.safetensors") for key, array in load_file(file).items()}


@contextmanager
def quiet_sdk():
    """What the SDK warns of is expected here; other tests listen to it."""
    logger = logging.getLogger("tinker")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    root = tmp_path_factory.mktemp("tinker")
    with quiet_sdk(), local_tinker(aliases={"Qwen/Qwen3-8B": "tiny", "small": str(small_model)}, data_dir=root):
        yield Home(root)


@pytest.fixture(scope="module")
def rows(home):
    return [home.model.tokenizer.encode_text(text) for text in ROWS]


def tensor(values, kind=np.float32):
    return types.TensorData.from_numpy(np.asarray(values, kind))


def datum(tokens, **inputs):
    told = {"target_tokens": tensor(tokens[1:], np.int64)} | {name: tensor(value) for name, value in inputs.items()}
    return types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=told)


def close(left, right, limit=1e-5):
    """All arrays agree to `limit` of the largest number among them."""
    assert left.keys() == right.keys()
    largest = max(np.abs(array).max() for array in right.values())
    assert largest > 0
    worst = max(np.abs(left[name] - right[name]).max() for name in right)
    assert worst <= limit * max(largest, 1.0), (worst, largest)


# --- numbers ---


def test_log_probs_of_trainer_sampler_and_scorer_agree(home, rows):
    client = home.trainer()
    client.forward_backward([datum(row) for row in rows], "cross_entropy")
    client.optim_step(types.AdamParams(learning_rate=3e-3)).result()
    trained = client.forward([datum(row) for row in rows], "cross_entropy").result()
    sampler = client.save_weights_and_get_sampling_client()
    for row, told in zip(rows, trained.loss_fn_outputs, strict=True):
        prompt = sampler.compute_logprobs(types.ModelInput.from_ints(row)).result()
        np.testing.assert_allclose(prompt[1:], told["logprobs"].to_numpy(), atol=1e-4)
    # Not those of the base, so the step was really taken.
    base = score_tokens(home.model, [rows[0]])[0]
    assert np.abs(base - trained.loss_fn_outputs[0]["logprobs"].to_numpy()).max() > 1e-3
    asked = types.SamplingParams(max_tokens=12, temperature=1.0, seed=5)
    for said in sampler.sample(types.ModelInput.from_ints(rows[0][:3]), 4, asked).result().sequences:
        whole = [*rows[0][:3], *said.tokens]
        scored = sampler.compute_logprobs(types.ModelInput.from_ints(whole)).result()[3:]
        np.testing.assert_allclose(said.logprobs, scored, atol=1e-4)
        again = client.forward([datum(whole)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
        np.testing.assert_allclose(said.logprobs, again[2:], atol=1e-4)


def policy_inputs(row, place):
    draw = np.random.default_rng(place)
    size = len(row) - 1
    return {
        "logprobs": draw.normal(-2.0, 1.0, size),
        "advantages": draw.normal(0.0, 1.0, size),
        "sequence_ratio_mask": (draw.random(size) < 0.7).astype(float),
    }


def push_on_paper(loss, lp, given, dials):
    """-dL/dlp of one row, in NumPy."""
    q, a = given["logprobs"], given["advantages"]
    r = np.exp(lp - q)
    if loss == "importance_sampling":
        return r * a
    if loss == "dro":
        return a - dials["beta"] * (lp - q)
    low, high = dials["clip_low_threshold"], dials["clip_high_threshold"]
    if loss == "cispo":
        return np.clip(r, low, high) * a
    if loss == "gspo":
        mask = given["sequence_ratio_mask"]
        r = np.full_like(lp, np.exp(((lp - q) * mask).sum() / mask.sum()))
    c = np.clip(r, low, high)
    return np.where((r * a < c * a) | (r == c), r * a, 0.0)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"cross_entropy"}))
def test_the_gradient_of_a_loss_is_that_of_its_push_on_log_probs(home, rows, loss):
    client = home.trainer()
    given = [policy_inputs(row, place) for place, row in enumerate(rows)]
    dials = {"beta": 0.2} if loss == "dro" else dict(LOSSES[loss].dials)
    read = [{name: inputs[name] for name in LOSSES[loss].inputs} for inputs in given]
    data = [datum(row, **inputs) for row, inputs in zip(rows, read, strict=True)]
    told = client.forward_backward(data, loss, dials).result()
    gradient = home.gradient(client)
    lps = [output["logprobs"].to_numpy().astype(np.float64) for output in told.loss_fn_outputs]
    pushes = [push_on_paper(loss, lp, inputs, dials) for lp, inputs in zip(lps, given, strict=True)]
    data = [datum(row, weights=push) for row, push in zip(rows, pushes, strict=True)]
    client.forward_backward(data, "cross_entropy").result()
    close(gradient, home.gradient(client))


def test_the_gradient_of_cross_entropy_is_that_of_softmax_by_hand(home, rows):
    client = home.trainer(train_attn=False, train_mlp=False, rank=4)
    row, weights = rows[1], np.random.default_rng(0).normal(size=len(rows[1]) - 1)
    told = client.forward_backward([datum(row, weights=weights)], "cross_entropy").result()
    gradient = home.gradient(client)
    # Only the head has an adapter: its gradient follows from hidden states and probabilities alone.
    import jax.numpy as jnp

    from tracetune.models.transformer import forward, head_weights

    tokens = jnp.asarray([row[:-1]], jnp.int32)
    positions = jnp.arange(tokens.shape[1])[None]
    model, ones = home.model, jnp.ones_like(tokens)
    hidden = forward(model.params, model.arch, tokens, segments_BT=ones, positions_BT=positions)
    hidden = np.asarray(hidden[0], np.float64)
    logits = hidden @ np.asarray(head_weights(home.model.params, home.model.arch), np.float64).T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    picked = np.log(p[np.arange(len(row) - 1), row[1:]])
    np.testing.assert_allclose(told.loss_fn_outputs[0]["logprobs"].to_numpy(), picked, atol=1e-4)
    np.testing.assert_allclose(told.metrics["loss:sum"], -(weights * picked).sum(), rtol=1e-4)
    push = -p * weights[:, None]
    push[np.arange(len(row) - 1), row[1:]] += weights
    arrays = home.arrays(client.save_state("paper").result().path)
    a = np.asarray(arrays["['adapter']['head']['a']"], np.float64)
    expected = -(32 / 4) * (hidden @ a).T @ push
    name = next(name for name in gradient if name.endswith("['head']['b']"))
    assert np.abs(gradient[name] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_candidates_dense_or_sparse_weigh_what_they_say(home, rows):
    row, draw = rows[1], np.random.default_rng(2)
    size, vocab = len(row) - 1, home.model.arch.vocab_size
    targets = draw.integers(0, vocab, (size, 3))
    weights = draw.normal(size=(size, 3)) * (draw.random((size, 3)) < 0.4)
    client = home.trainer()
    inputs = {"target_tokens": tensor(targets, np.int64), "weights": tensor(weights)}
    model_input = types.ModelInput.from_ints(row[:-1])
    data = [types.Datum(model_input=model_input, loss_fn_inputs=inputs)]
    told = client.forward_backward(data, "cross_entropy").result()
    dense = home.gradient(client)
    assert told.loss_fn_outputs[0]["logprobs"].to_numpy().shape == (size, 3)
    held = weights != 0
    sparse = {}
    for name, values, kind in (("target_tokens", targets, "int64"), ("weights", weights, "float32")):
        rows_of, columns = np.nonzero(held)
        crow = np.concatenate([[0], np.cumsum(held.sum(1))]).tolist()
        sparse[name] = types.TensorData(
            data=values[rows_of, columns].tolist(),
            dtype=kind,
            shape=[size, 3],
            sparse_crow_indices=crow,
            sparse_col_indices=columns.tolist(),
        )
    client.forward_backward([types.Datum(model_input=model_input, loss_fn_inputs=sparse)], "cross_entropy").result()
    close(home.gradient(client), dense)
    # One at a time they add up to the same.
    for k in range(3):
        one = {"target_tokens": tensor(targets[:, k], np.int64), "weights": tensor(weights[:, k])}
        client.forward_backward([types.Datum(model_input=model_input, loss_fn_inputs=one)], "cross_entropy").result()
    close(home.gradient(client), dense)


def test_chunks_of_a_large_request_equal_one(home, rows):
    client = home.trainer("small", rank=2)
    weights = np.random.default_rng(3).normal(size=2_500)
    data = [datum(rows[place % 3][:5], weights=np.full(4, weights[place])) for place in range(2_500)]
    chunked = client.forward_backward(data, "cross_entropy").result()
    whole = home.gradient(client)
    assert len(chunked.loss_fn_outputs) == 2_500
    total = 0.0
    for kind in range(3):
        of_kind = [datum(rows[kind][:5], weights=np.full(4, weights[kind::3].sum()))]
        total += client.forward_backward(of_kind, "cross_entropy").result().metrics["loss:sum"]
    np.testing.assert_allclose(chunked.metrics["loss:sum"], total, rtol=1e-3, atol=1e-3)
    close(whole, home.gradient(client), 1e-4)


def step(client, row, rate):
    client.forward_backward([datum(row)], "cross_entropy")
    client.optim_step(types.AdamParams(learning_rate=rate, weight_decay=0.1, grad_clip_norm=1.0)).result()


def weights_of(home, client, name):
    arrays = home.arrays(client.save_state(name).result().path)
    return {key: array for key, array in arrays.items() if key.startswith("['adapter']")}


def test_a_warm_resume_is_no_interruption_and_a_cold_one_is(home, rows):
    client = home.trainer()
    for row in rows:
        step(client, row, 1e-2)
    path = client.save_state("half").result().path
    warm = home.service.create_training_client_from_state_with_optimizer(path)
    cold = home.service.create_training_client_from_state(path)
    for each in (client, warm, cold):
        step(each, rows[0], 5e-3)
        step(each, rows[1], 5e-3)
    straight, resumed, begun = (weights_of(home, each, "end") for each in (client, warm, cold))
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)
    assert any(np.abs(straight[name] - begun[name]).max() > 1e-4 for name in straight)


def test_adam_takes_each_step_with_its_own_dials(home, rows):
    """Two steps of AdamW with clipping and decay, by hand."""
    client = home.trainer()
    before = weights_of(home, client, "w0")
    mean = dict.fromkeys(before, 0.0)
    square = dict(mean)
    for count, (rate, decay, clip) in enumerate([(1e-2, 0.1, 0.5), (3e-3, 0.0, 0.0)], 1):
        client.forward_backward([datum(rows[0])], "cross_entropy").result()
        gradient_client = home.service.create_training_client_from_state(client.save_state(f"s{count}").result().path)
        gradient_client.forward_backward([datum(rows[0])], "cross_entropy").result()
        gradient = {name.replace("moments']['mean", "adapter"): g for name, g in home.gradient(gradient_client).items()}
        told = client.optim_step(
            types.AdamParams(
                learning_rate=rate, beta1=0.8, beta2=0.9, eps=1e-8, weight_decay=decay, grad_clip_norm=clip
            )
        ).result()
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
        np.testing.assert_allclose(told.metrics["grad_norm"], norm, rtol=1e-4)
        for name, g in gradient.items():
            g = g * (min(1.0, clip / norm) if clip else 1.0)
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.9 * square[name] + 0.1 * g**2
            push = (mean[name] / (1 - 0.8**count)) / (np.sqrt(square[name] / (1 - 0.9**count)) + 1e-8)
            before[name] = before[name] * (1 - rate * decay) - rate * push
    after = weights_of(home, client, "w2")
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, atol=2e-5)


def test_only_the_groups_asked_for_are_trained(home, rows):
    for groups in ({"train_attn": False}, {"train_mlp": False}, {"train_unembed": False}):
        client = home.trainer(**({"train_unembed": True} | groups))
        names = weights_of(home, client, "groups").keys()
        assert any("q_proj" in name for name in names) == groups.get("train_attn", True)
        assert any("up_proj" in name for name in names) == groups.get("train_mlp", True)
        assert any("['head']" in name for name in names) == groups.get("train_unembed", True)
        step(client, rows[0], 1e-2)


# --- sampling ---


def test_seeds_stops_and_limits_of_samples(home, rows):
    sampler = home.service.create_sampling_client(base_model="tiny")
    prompt = types.ModelInput.from_ints(rows[0][:3])

    def said(count=1, **params):
        params = {"max_tokens": 16, "temperature": 1.0, "seed": 11} | params
        return sampler.sample(prompt, count, types.SamplingParams(**params)).result().sequences

    first, again, other = said(3), said(3), said(3, seed=12)
    assert [each.tokens for each in first] == [each.tokens for each in again] != [each.tokens for each in other]
    ours = generate_groups(
        home.model,
        [rows[0][:3]],
        Sampling(max_tokens=16, temperature=1.0, seed=11),
        num_generations=3,
        batch_size=SLOTS,
    )
    assert [tuple(each.tokens) for each in first] == [each.tokens for each in ours[0]]
    greedy = said(temperature=0.0)[0]
    assert greedy.tokens == said(temperature=0.0, seed=4)[0].tokens
    stop = greedy.tokens[2]
    cut = said(temperature=0.0, stop=[stop])[0]
    assert cut.tokens == greedy.tokens[: greedy.tokens.index(stop) + 1]
    assert cut.stop_reason == "stop"
    text = home.model.tokenizer.decode(greedy.tokens)
    by_text = said(temperature=0.0, stop=[text[1:3]])[0]
    assert by_text.stop_reason == "stop"
    assert text[1:3] in home.model.tokenizer.decode(by_text.tokens)
    endless = said(temperature=0.0, stop=[], max_tokens=64)[0]
    assert (len(endless.tokens), endless.stop_reason) == (64, "length")
    assert said(top_k=1)[0].tokens == greedy.tokens


def test_the_end_token_ends_unless_stops_are_given(home):
    client = home.trainer()
    model = home.model
    end = next(iter(model.tokenizer.stop_ids))
    row = [*model.tokenizer.encode_text("1 + 1"), end]
    for _ in range(12):
        step(client, row, 2e-2)
    sampler = client.save_weights_and_get_sampling_client()
    prompt = types.ModelInput.from_ints(row[:-1])
    asked = types.SamplingParams(max_tokens=8, temperature=0.0)
    ended = sampler.sample(prompt, 1, asked).result().sequences[0]
    assert (list(ended.tokens), ended.stop_reason) == ([end], "stop")
    asked = types.SamplingParams(max_tokens=8, temperature=0.0, stop=[])
    assert len(sampler.sample(prompt, 1, asked).result().sequences[0].tokens) == 8


def test_scores_of_prompts_and_samples(home, rows):
    sampler = home.service.create_sampling_client(base_model="tiny")
    row = rows[1]
    targets = np.full((len(row) - 1, 2), -1)
    targets[:, 0], targets[1, 1] = row[1:], 5
    told = sampler.sample(
        types.ModelInput.from_ints(row),
        2,
        types.SamplingParams(max_tokens=4, temperature=0.7, seed=1),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=3,
        topk_sample_logprobs=2,
        target_prompt_logprobs=tensor(targets, np.int64),
    ).result()
    scored = score_tokens(home.model, [row])[0]
    np.testing.assert_allclose(told.prompt_logprobs[1:], scored, atol=1e-4)
    assert told.prompt_logprobs[0] is told.topk_prompt_logprobs[0] is None
    for place, pairs in enumerate(told.topk_prompt_logprobs[1:]):
        values = [value for _, value in pairs]
        assert values == sorted(values, reverse=True)
        match = [value for token, value in pairs if token == row[place + 1]]
        assert not match or abs(match[0] - scored[place]) < 1e-4
    wanted = told.target_prompt_logprobs.to_numpy()
    np.testing.assert_allclose(wanted[:, 0], scored, atol=1e-4)
    assert np.count_nonzero(wanted[:, 1]) == 1
    for said in told.sequences:
        best = said.topk_logprobs
        assert len(best) == len(said.tokens)
        for token, value, pairs in zip(said.tokens, said.logprobs, best, strict=True):
            known = dict(pairs)
            # Tempered, as what was drawn from: the likeliest is never less likely than what was said.
            assert value <= max(known.values()) + 1e-4
            assert token not in known or abs(known[token] - value) < 1e-3
    last = sampler.sample(
        types.ModelInput.from_ints(row),
        1,
        types.SamplingParams(max_tokens=1),
        include_prompt_logprobs=True,
        prompt_logprobs_last_n=2,
    ).result()
    assert [value is not None for value in last.prompt_logprobs] == [False] * (len(row) - 2) + [True] * 2


def test_a_sampler_keeps_its_weights_unless_it_was_made_to_follow(home, rows):
    client = home.trainer()
    prompt = types.ModelInput.from_ints(rows[0])
    kept = client.save_weights_and_get_sampling_client()
    before = kept.compute_logprobs(prompt).result()
    following = client.save_weights_and_get_sampling_client(kind="inflight")
    step(client, rows[0], 2e-2)
    newer = client.save_weights_and_get_sampling_client(kind="inflight")
    assert kept.compute_logprobs(prompt).result() == before
    assert following.compute_logprobs(prompt).result() == newer.compute_logprobs(prompt).result() != before


def test_two_models_learn_apart(home, rows):
    left, right = home.trainer(), home.trainer()
    assert left.model_id != right.model_id
    step(left, rows[0], 1e-2)
    step(right, rows[1], 1e-2)
    alone = home.trainer()
    step(alone, rows[1], 1e-2)
    one, two, three = (weights_of(home, each, "apart") for each in (left, right, alone))
    assert all(np.array_equal(two[name], three[name]) for name in two)
    assert any(not np.array_equal(one[name], two[name]) for name in one)


# --- the rest ---


def test_checkpoints_are_listed_lent_and_deleted(home, rows, tmp_path):
    client = home.trainer(user_metadata={"note": "x"})
    step(client, rows[0], 1e-2)
    saved = client.save_state("one", ttl_seconds=7200).result().path
    for_sampler = client.save_weights_for_sampler("one").result().path
    with pytest.raises(tinker.RequestFailedError, match="already exists"):
        client.save_state("one").result()
    client = home.service.create_training_client_from_state_with_optimizer(saved)
    run = saved.removeprefix("tinker://").split("/")[0]
    listed = home.rest.list_checkpoints(run).result().checkpoints
    assert {(each.checkpoint_id, each.checkpoint_type) for each in listed} == {
        ("weights/one", "training"),
        ("sampler_weights/one", "sampler"),
    }
    assert next(each for each in listed if each.tinker_path == saved).expires_at is not None
    home.rest.set_checkpoint_ttl_from_tinker_path(saved, None).result()
    home.rest.publish_checkpoint_from_tinker_path(saved).result()
    shown = next(each for each in home.rest.list_user_checkpoints().result().checkpoints if each.tinker_path == saved)
    assert (shown.expires_at, shown.public) == (None, True)
    assert shown.size_bytes > 1000
    home.rest.unpublish_checkpoint_from_tinker_path(saved).result()
    facts = home.rest.get_weights_info_by_tinker_path(saved).result()
    assert (facts.base_model, facts.lora_rank, facts.train_unembed) == ("tiny", 4, True)
    assert home.rest.get_training_run(run).result().last_checkpoint.tinker_path == saved
    assert home.rest.get_training_run_by_tinker_path(saved).result().user_metadata == {"note": "x"}
    sampler = home.service.create_sampling_client(model_path=for_sampler)
    assert sampler.get_base_model() == "tiny"
    scored = sampler.compute_logprobs(types.ModelInput.from_ints(rows[0])).result()
    home.rest.delete_checkpoint_from_tinker_path(for_sampler).result()
    assert sampler.compute_logprobs(types.ModelInput.from_ints(rows[0])).result() == scored
    with pytest.raises(tinker.APIStatusError, match="not found"):
        home.service.create_sampling_client(model_path=for_sampler).result()
    home.rest.delete_checkpoint(run, "weights/one").result()
    assert home.rest.list_checkpoints(run).result().checkpoints == []


@pytest.mark.parametrize("unembed", [False, True])
def test_external_weights_are_an_adapter_that_computes_the_same(home, rows, tmp_path, unembed):
    client = home.trainer(train_unembed=unembed)
    step(client, rows[0], 1e-2)
    path = client.save_weights_external("peft").result().path
    urls = home.rest.get_external_weights_urls(path).result().urls
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file, url in urls.items():
        (folder / file).write_bytes(urllib.request.urlopen(url).read())
    ours = load_folder(folder)
    trained = client.forward([datum(rows[0])], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    np.testing.assert_allclose(score_tokens(ours, [rows[0]])[0], trained, atol=1e-4)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(next(iter(urls.values())) + "x")
    with pytest.raises(tinker.RequestFailedError, match="not encrypted here"):
        client.save_weights_external("secret", age_encryption_recipients=["age1x"]).result()


def test_a_client_is_told_what_it_talks_to(home):
    client = home.service.create_lora_training_client("Qwen/Qwen3-8B", rank=8)
    assert client.get_info().model_data.model_name == "Qwen/Qwen3-8B"
    assert client.get_tokenizer().encode("12 + 3") == home.model.tokenizer.encode_text("12 + 3")
    told = home.rest.get_server_capabilities().result().supported_models
    names = ("tiny", "Qwen/Qwen3-8B", "small")
    assert {(each.model_name, each.max_context_length) for each in told} == {(name, 2048) for name in names}
    session = client.model_id.partition(":")[0]
    assert session in home.rest.list_sessions().result().sessions
    assert client.model_id in home.rest.get_session(session).result().training_run_ids
    sampler = client.save_weights_and_get_sampling_client()
    assert home.rest.get_sampler(sampler.result()._sampling_session_id).result().base_model == "Qwen/Qwen3-8B"
    runs = home.rest.list_training_runs(limit=1).result()
    assert len(runs.training_runs) == 1 < runs.cursor.total_count


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"rank": 129}, "1 to 128"),
        ({"rank": 0}, "1 to 128"),
        ({"train_attn": False, "train_mlp": False, "train_unembed": False}, "nothing would be trained|must be"),
    ],
)
def test_models_that_cannot_be_are_refused(home, config, told):
    with pytest.raises((tinker.APIStatusError, tinker.RequestFailedError, ValueError, AssertionError), match=told):
        home.trainer(**config).get_info()
    assert home.trainer(rank=128).get_info().lora_rank == 128


def test_an_unknown_model_is_refused_naming_those_there_are(home):
    with pytest.raises(tinker.APIStatusError, match="there are tiny, Qwen/Qwen3-8B"):
        home.service.create_lora_training_client("meta-llama/Llama-3.1-8B").get_info()


def bad_data(rows, kind):
    row, size = rows[0], len(rows[0]) - 1
    return {
        "unknown loss": ("nonesuch", [datum(row)], {}, "must be one of"),
        "missing input": ("ppo", [datum(row, advantages=np.ones(size))], {}, "logprobs: is missing"),
        "short weights": ("cross_entropy", [datum(row, weights=np.ones(2))], {}, "must have the shape"),
        "unknown dial": ("ppo", [datum(row, **policy(size))], {"epsilon": 0.2}, "got epsilon"),
        "not finite": ("cross_entropy", [datum(row, weights=np.full(size, np.inf))], {}, "not all finite"),
        "vocabulary": ("cross_entropy", [datum([*row, 999_999])], {}, "outside the vocabulary"),
        "too long": ("cross_entropy", [datum([5] * 3000)], {}, "at most 2048"),
    }[kind]


def policy(size):
    return {"logprobs": np.zeros(size), "advantages": np.ones(size)}


@pytest.mark.parametrize(
    "kind", ["unknown loss", "missing input", "short weights", "unknown dial", "not finite", "vocabulary", "too long"]
)
def test_what_cannot_be_learnt_is_refused_and_no_step_is_taken_on_the_rest(home, rows, kind):
    client = home.trainer()
    start = weights_of(home, client, "start")
    loss, data, dials, told = bad_data(rows, kind)
    good = client.forward_backward([datum(rows[0])], "cross_entropy")
    bad = client.forward_backward(data, loss, dials or None)
    taken = client.optim_step(types.AdamParams(learning_rate=1.0))
    good.result()
    with pytest.raises(tinker.RequestFailedError, match=told):
        bad.result()
    with pytest.raises(tinker.RequestFailedError, match="nothing was applied"):
        taken.result()
    after = weights_of(home, client, "after")
    assert all(np.array_equal(start[name], after[name]) for name in start)
    # The control: the same client goes on, and moves.
    step(client, rows[0], 1e-2)
    moved = weights_of(home, client, "moved")
    assert any(not np.array_equal(start[name], moved[name]) for name in start)


def test_the_unpublished_loss_has_a_stand_in_that_is_said_once(home, rows, tmp_path, capsys):
    data = [datum(rows[0], **policy(len(rows[0]) - 1))]
    client = home.trainer()
    client.forward_backward(data, "stable_reinforce").result()
    stand_in = home.gradient(client)
    client.forward_backward(data, "ppo").result()
    close(stand_in, home.gradient(client), 1e-9)
    client.forward_backward(data, "stable_reinforce").result()
    assert capsys.readouterr().err.count("stands in for it") <= 1
    with local_tinker(data_dir=tmp_path, strict=True) as url:
        strict = tinker.ServiceClient(base_url=url).create_lora_training_client("tiny", rank=2)
        with pytest.raises(tinker.RequestFailedError, match="not published"):
            strict.forward_backward(data, "stable_reinforce").result()


def test_what_belongs_to_the_cloud_is_refused_in_words(home):
    with pytest.raises(tinker.APIStatusError, match="not served by a Tinker of one's own"):
        home.rest.assign_session_project("s", "p").result()


def test_a_finished_session_forgets_its_samplers_and_keeps_its_checkpoints(home, rows):
    with tinker.ServiceClient() as service:
        client = service.create_lora_training_client("tiny", rank=2)
        path = client.save_state("kept").result().path
        model_id = client.model_id
    asked = httpx.post(f"{os.environ['TINKER_BASE_URL']}/api/v1/get_info", json={"model_id": model_id})
    assert (asked.status_code, "its session is over" in asked.text) == (404, True)
    assert home.service.create_training_client_from_state(path).get_info().lora_rank == 2


def test_many_samplers_are_batched(home, rows):
    """64 at once take few rounds of the sampler, and say what they say alone."""
    sampler = home.service.create_sampling_client(base_model="tiny")
    asked = [types.SamplingParams(max_tokens=8, temperature=1.0, seed=place) for place in range(64)]
    prompts = [types.ModelInput.from_ints(rows[place % 3][:4]) for place in range(64)]
    futures = [sampler.sample(prompt, 1, each) for prompt, each in zip(prompts, asked, strict=True)]
    together = [future.result().sequences[0] for future in futures]
    for place in (0, 17, 63):
        alone = sampler.sample(prompts[place], 1, asked[place]).result().sequences[0]
        # To the last bit: how many others wait is nobody's business.
        assert (alone.tokens, alone.logprobs) == (together[place].tokens, together[place].logprobs)


def test_the_package_lends_a_tinker_and_puts_the_environment_back(home):
    before = os.environ["TINKER_BASE_URL"]
    with tracetune.local_tinker() as url:
        assert os.environ["TINKER_BASE_URL"] == url != before
        assert threading.active_count() > 1
    assert os.environ["TINKER_BASE_URL"] == before
