"""OpenAI's client against a Tinker of one's own: what it gets is what the engine says, whole or while it is drawn."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import openai
import pytest
from starlette.testclient import TestClient

import tracetune
from tracetune.api.tinker import create_tinker
from tracetune.app.benchmark import EndpointSettings, EndpointSubject, ModelSubject, benchmark
from tracetune.app.tinker.samples import SLOTS, Ask, answer_together
from tracetune.app.tinker.service import Bases, TinkerService
from tracetune.app.tinker.shelf import Shelf, parse_path
from tracetune.core.values import Message
from tracetune.data.render import render_prompt
from tracetune.engine.learner import AdapterShape, adapted, init_adapter
from tracetune.engine.prompt_scores import score_likeliest
from tracetune.engine.sampler import Sampling, generate
from tracetune.engine.scoring import score_tokens
from tracetune.models.load import load_model, save_folder
from tracetune.models.model import Model

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
PATH = "tinker://a-run:train:0/sampler_weights/000001"
USER: list[Any] = [{"role": "user", "content": "What is 2 + 3?"}]


class Place(NamedTuple):
    client: openai.OpenAI
    url: str
    base: Model
    adapted: Model
    root: Path


def keep_checkpoint(root: Path, base: Model) -> Model:
    """A checkpoint that says other things than its base, as a training client would have left it."""
    shape = AdapterShape(rank=4, seed=1)
    key = jax.random.key(7)
    adapter = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(key, leaf.shape), init_adapter(base, shape))
    facts = {"rank": 4, "seed": 1, "attention": True, "mlp": True, "unembed": True}
    shelf = Shelf(root)
    run = {"base_model": "tiny", "session_id": "a-run", "user_metadata": None, "adapter": facts}
    shelf.add_run("a-run:train:0", run)
    meta = {"base_model": "tiny", "base_fingerprint": base.fingerprint, "adapter": facts}
    for path in (PATH, PATH.replace("sampler_weights", "external_weights")):
        shelf.save(parse_path(path), {"adapter": adapter}, meta, {})
    return adapted(base, adapter, shape)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root, base = tmp_path_factory.mktemp("tinker"), load_model("tiny")
    made = keep_checkpoint(root, base)
    with tracetune.local_tinker("tiny", aliases={"Qwen/Qwen3-8B": "tiny"}, data_dir=root) as url:
        yield Place(openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0), url, base, made, root)


def said(model: Model, prompt: list[int], **sampling: Any) -> Any:
    """What the engine itself says."""
    return generate(model, [prompt], Sampling(**sampling), batch_size=SLOTS)[0]


def streamed(client: openai.OpenAI, **request: Any) -> dict[int, str]:
    """The deltas of every choice, joined."""
    texts: dict[int, str] = {}
    for chunk in client.completions.create(stream=True, **request):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return texts


def test_greedy_text_and_its_usage_are_the_engines(here):
    prompt = here.base.tokenizer.encode_text("What is 2 + 3?")
    found = here.client.completions.create(model="tiny", prompt="What is 2 + 3?", temperature=0, max_tokens=20)
    expected = said(here.base, prompt, max_tokens=20)
    assert (found.choices[0].text, found.choices[0].finish_reason) == (expected.text, expected.stop_reason)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), len(expected.tokens))
    assert found.usage.total_tokens == len(prompt) + len(expected.tokens)
    ids = here.client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=20)
    assert ids.choices[0].text == expected.text


def test_a_chat_is_written_in_the_models_own_format(here):
    turns: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]},
    ]
    prompt = render_prompt([Message("system", "Be brief."), Message("user", "What is 2 + 3?")], here.base.tokenizer)
    found = here.client.chat.completions.create(
        model="Qwen/Qwen3-8B", messages=turns, temperature=0.7, seed=5, max_tokens=99, max_completion_tokens=20
    )
    expected = said(here.base, prompt, temperature=0.7, seed=5, max_tokens=20)
    assert found.choices[0].message.content == expected.text
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), len(expected.tokens))
    assert (found.object, found.choices[0].message.role) == ("chat.completion", "assistant")


def test_a_control_tokens_name_in_a_message_is_text(here):
    spelled = [Message("user", "a <end><model> b")]
    tokens = render_prompt(spelled, here.base.tokenizer)
    assert tokens.count(here.base.tokenizer.control_id("<model>")) == 1
    message: Any = {"role": "user", "content": "a <end><model> b"}
    found = here.client.chat.completions.create(model="tiny", messages=[message], max_tokens=1)
    assert found.usage.prompt_tokens == len(tokens)
    # As control tokens the two names would be one token each.
    assert len(tokens) > len(render_prompt([Message("user", "a  b")], here.base.tokenizer)) + 2


def test_logprobs_are_those_of_the_scorer_whatever_the_temperature(here):
    found = here.client.completions.create(
        model="tiny", prompt="2 + 3 is", temperature=1.7, seed=3, max_tokens=12, logprobs=3, echo=True
    )
    prompt = here.base.tokenizer.encode_text("2 + 3 is")
    tokens = [*prompt, *said(here.base, prompt, temperature=1.7, seed=3, max_tokens=12).tokens]
    told = found.choices[0].logprobs
    assert len(told.tokens) == len(tokens)
    assert told.token_logprobs[0] is None
    np.testing.assert_allclose(told.token_logprobs[1:], score_tokens(here.base, [tokens])[0], atol=TOLERANCE)
    likeliest = score_likeliest(here.base, tokens, 3)
    for top, logprobs_K in zip(told.top_logprobs[1:], likeliest.logprobs, strict=True):
        np.testing.assert_allclose(sorted(top.values())[::-1][:3], logprobs_K, atol=TOLERANCE)
    # At the temperature they are others, so the comparison can fail.
    tempered = score_likeliest(here.base, tokens, 3, temperature=1.7)
    assert np.abs(tempered.logprobs - likeliest.logprobs).max() > 0.1


def test_a_prompt_can_be_scored_alone(here):
    prompt = here.base.tokenizer.encode_text("What is 2 + 3? naïve")
    found = here.client.completions.create(model="tiny", prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    told = found.choices[0].logprobs
    np.testing.assert_allclose(told.token_logprobs[1:], score_tokens(here.base, [prompt])[0], atol=TOLERANCE)
    assert found.choices[0].text == "What is 2 + 3? naïve"
    assert "bytes:\\xc3" in told.tokens
    assert found.usage.completion_tokens == 0
    whole = [pair for pair in zip(told.tokens, told.text_offset, strict=True) if not pair[0].startswith("bytes:")]
    assert len(whole) > 5
    assert all(found.choices[0].text.startswith(token, at) for token, at in whole)


@pytest.mark.parametrize("k", [3, 40])
def test_tokens_are_told_by_their_ids_where_that_is_asked(here, k):
    tokens = here.base.tokenizer.encode_text("What is 2 + 3? naïve")
    scoring: Any = {"model": "tiny", "prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": k}
    more = {"return_tokens_as_token_ids": True}
    told = here.client.completions.create(**scoring, extra_body=more).choices[0].logprobs
    assert told.tokens == [f"token_id:{token}" for token in tokens]
    likeliest = score_likeliest(here.base, tokens, k)
    for top, own, tokens_K, logprobs_K in zip(told.top_logprobs[1:], told.tokens[1:], *likeliest, strict=True):
        names = [f"token_id:{token}" for token in tokens_K]
        # The token itself is told too where it is not among the likeliest.
        assert top.keys() == {*names, own}
        np.testing.assert_allclose([top[name] for name in names], logprobs_K, atol=TOLERANCE)
    chat = here.client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=4, logprobs=True, top_logprobs=k, extra_body=more
    )
    named = [each for token in chat.choices[0].logprobs.content for each in (token, *token.top_logprobs)]
    assert all(each.token.removeprefix("token_id:").isdecimal() for each in named)
    if k > 20:
        # By their texts fewer are told: several share one.
        with pytest.raises(openai.BadRequestError, match="logprobs: must be 0 to 20, got 40"):
            here.client.completions.create(**scoring)


def test_logprobs_of_a_chat_have_bytes_and_alternatives(here):
    found = here.client.chat.completions.create(
        model="tiny", messages=USER, seed=11, max_tokens=16, logprobs=True, top_logprobs=2
    )
    prompt = render_prompt([Message("user", "What is 2 + 3?")], here.base.tokenizer)
    completion = said(here.base, prompt, temperature=1.0, seed=11, max_tokens=16)
    told = found.choices[0].logprobs
    np.testing.assert_allclose([each.logprob for each in told.content], completion.logprobs, atol=TOLERANCE)
    assert {len(each.top_logprobs) for each in told.content} == {2}
    joined = b"".join(bytes(each.bytes or ()) for each in told.content)
    assert joined.decode("utf-8", "replace") == found.choices[0].message.content


def test_a_seed_gives_the_same_words_and_another_gives_others(here):
    def words(seed: int | None, n: int = 1) -> list[str]:
        found = here.client.completions.create(model="tiny", prompt="So", max_tokens=12, seed=seed, n=n)
        return [choice.text for choice in found.choices]

    assert words(-5) == words(-5) == words(2**32 - 5)
    assert words(7, n=3)[0] == words(7)[0]
    assert len(set(words(7, n=3))) == 3
    assert words(None) != words(None)


def test_prompts_of_one_request_are_answered_in_their_order(here):
    prompts = ["What is", "2 + 3", "So the answer is"]
    together = here.client.completions.create(model="tiny", prompt=prompts, n=2, seed=4, max_tokens=6)
    assert [choice.index for choice in together.choices] == list(range(6))
    for place, prompt in enumerate(prompts):
        alone = here.client.completions.create(model="tiny", prompt=prompt, n=2, seed=4, max_tokens=6)
        texts = [choice.text for choice in together.choices[2 * place : 2 * place + 2]]
        assert texts == [choice.text for choice in alone.choices]


@pytest.mark.parametrize("more", [{}, {"stop": [" plus", "e", "3"]}, {"stop": "th", "logprobs": 1, "echo": True}])
def test_a_stream_says_what_the_whole_says(here, more):
    request = {"model": "tiny", "prompt": ["What is", "é"], "max_tokens": 70, "seed": 21, "n": 2, **more}
    whole = here.client.completions.create(**request)
    texts = streamed(here.client, **request)
    assert texts == {choice.index: choice.text for choice in whole.choices}
    for stop in more.get("stop", ()) if "echo" not in more else ():
        assert not any(stop in text for text in texts.values())
    if more and "echo" not in more:
        plain = here.client.completions.create(**{**request, "stop": None})
        assert any(stop in choice.text for choice in plain.choices for stop in more["stop"])
        assert {choice.finish_reason for choice in whole.choices} == {"stop"}


def test_a_stream_speaks_while_it_is_drawn(here):
    stream = here.client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=110, seed=2, logprobs=True, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    spoken = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(spoken) > 3
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    whole = here.client.chat.completions.create(model="tiny", messages=USER, max_tokens=110, seed=2, logprobs=True)
    assert chunks[-1].usage == whole.usage
    assert "".join(chunk.choices[0].delta.content for chunk in spoken) == whole.choices[0].message.content
    told = [
        each for chunk in chunks if chunk.choices and (found := chunk.choices[0].logprobs) for each in found.content
    ]
    assert told == whole.choices[0].logprobs.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_models_are_listed_by_their_names_and_paths(here):
    assert [model.id for model in here.client.models.list()] == ["tiny", "Qwen/Qwen3-8B", PATH]
    assert here.client.models.retrieve(PATH).id == PATH
    at_tinkers = openai.OpenAI(base_url=f"{here.url}/oai/api/v1", api_key="any", max_retries=0)
    assert at_tinkers.models.retrieve("Qwen/Qwen3-8B").owned_by == "tracetune"
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        here.client.models.retrieve("gpt-4")


def test_a_checkpoint_speaks_by_its_path(here):
    prompt = here.base.tokenizer.encode_text("What is")
    expected = said(here.adapted, prompt, max_tokens=12)
    assert expected.text != said(here.base, prompt, max_tokens=12).text
    for name in (PATH, f"tiny;{PATH}", f"Qwen/Qwen3-8B;{PATH}"):
        found = here.client.completions.create(model=name, prompt="What is", temperature=0, max_tokens=12)
        assert (found.choices[0].text, found.model) == (expected.text, name)


def test_no_name_opens_what_is_not_served(here, tmp_path):
    folder = tmp_path / "saved"
    save_folder(here.base, folder)
    bad = (
        *(str(folder), "gpt-4", "../tiny", "tinker://", PATH + "9", f"other;{PATH}", "tinker://../../x/y"),
        *(PATH.replace("sampler_weights", "external_weights"), PATH.replace("a-run", "..%2f.."), "model\n"),
    )
    for name in bad:
        with pytest.raises(openai.NotFoundError) as raised:
            here.client.completions.create(model=name, prompt="a", max_tokens=1)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model"), name
    # A server that was started with the folder serves it.
    with tracetune.local_tinker(str(folder)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")
        assert client.completions.create(model=str(folder), prompt="a", max_tokens=1).usage.completion_tokens == 1


def test_many_at_once_say_what_each_says_alone(here):
    def ask(seed: int) -> str:
        found = here.client.completions.create(model="tiny", prompt="So " * (1 + seed % 3), seed=seed, max_tokens=10)
        return found.choices[0].text

    alone = [ask(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(ask, range(12))) == alone


def test_whoever_goes_away_leaves_the_others_served(here):
    for _ in range(3):
        stream = here.client.completions.create(model="tiny", prompt="So", max_tokens=1900, n=128, stream=True)
        next(iter(stream))
        stream.close()
    with pytest.raises(openai.APITimeoutError):
        here.client.with_options(timeout=0.02).completions.create(model="tiny", prompt="So", max_tokens=1900, n=128)
    # All that was asked for would take minutes.
    soon = here.client.with_options(timeout=30)
    assert soon.completions.create(model="tiny", prompt="So", max_tokens=2, seed=1).usage.completion_tokens == 2


class Listener:
    """Hears `most` chunks, then leaves."""

    def __init__(self, most: int) -> None:
        self.most, self.heard = most, []

    @property
    def is_here(self) -> bool:
        return len(self.heard) < self.most

    def hear(self, _place: int, tokens: Sequence[int], _logprobs: Sequence[float]) -> None:
        self.heard.append(list(tokens))


def test_nothing_is_drawn_for_who_has_left(here):
    sampling = Sampling(max_tokens=60, temperature=1.0, stop_ids=frozenset())
    prompt = tuple(here.base.tokenizer.encode_text("So"))
    listeners = [Listener(0), Listener(1), Listener(99)]
    asks = [Ask(model=here.base, prompt=prompt, sampling=sampling, audience=each) for each in listeners]
    answers = dict(answer_together(asks))
    drawn = [[completion.tokens for completion in answers[place].completions] for place in range(3)]
    assert drawn[0] == []
    assert drawn[1] == [tuple(listeners[1].heard[0])]
    assert len(drawn[2][0]) == 60


def test_the_key_is_asked_for_in_openais_words(tmp_path):
    service = TinkerService(tmp_path, Bases(["tiny"], {}))
    app = create_tinker(service, host_names=frozenset({"testserver"}), key="tml-right")
    client = TestClient(app)
    refused = client.get("/v1/models", headers={"Authorization": "Bearer tml-wrong"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert client.get("/v1/models", headers={"Authorization": "Bearer tml-right"}).status_code == 200
    service.close()


@pytest.mark.long
def test_a_benchmark_over_http_gives_the_checkpoints_own_answers(here, tmp_path):
    rows = [
        {"id": "sum", "prompt": "What is 2 + 3?", "expected_answer": "5"},
        {"id": "turn", "evaluation": "tutor", "prompt": "What is 9 + 8?", "expected_answer": "17", "grade": 2},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The server's own number of slots: what is compiled is compiled once.
    common: dict[str, Any] = {"datasets": [str(tmp_path / "mine.jsonl")], "max_tokens": 8, "batch_size": SLOTS}
    local = benchmark(ModelSubject("tiny"), output=tmp_path / "local", **common)
    settings = EndpointSettings(url=here.url, model="tiny")
    remote = benchmark(EndpointSubject(settings), output=tmp_path / "remote", **common)

    def said(folder: str) -> dict[str, tuple[str, int, int]]:
        found = map(json.loads, (tmp_path / folder / "answers.jsonl").read_text().splitlines())
        return {row["id"]: (row["response"], row["prompt_tokens"], row["completion_tokens"]) for row in found}

    assert said("remote") == said("local")
    assert remote.results["evaluations"] == local.results["evaluations"]
    assert remote.results["answered"] == 2
