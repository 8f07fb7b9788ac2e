import json
from pathlib import Path

import pytest

from tracetune.core.errors import InputError
from tracetune.core.values import Message
from tracetune.models.templates import GEMMA, QWEN25_SYSTEM, TINY, check_turns, choose_format
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

CHAT = Path(__file__).parent / "fixtures" / "chat"
GOLDEN = json.loads((CHAT / "golden.json").read_text())
CASES = [(family, case) for family, cases in GOLDEN.items() for case in cases]


def conversation(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role, content) for role, content in turns]


def golden(family: str, case: str) -> tuple[Tokenizer, list[Message], dict]:
    entry = GOLDEN[family][case]
    return Tokenizer.from_folder(CHAT / family), [Message(**message) for message in entry["messages"]], entry


def text_and_ids(tokenizer: Tokenizer, messages: list[Message], *, generate: bool = False) -> tuple[str, list[int]]:
    pieces = tokenizer.chat_format.pieces(messages, generate=generate)
    ids = [[tokenizer.control_id(p.text)] if p.control else tokenizer.encode_text(p.text) for p in pieces]
    return "".join(piece.text for piece in pieces), [token for piece_ids in ids for token in piece_ids]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_a_conversation_reads_and_encodes_as_transformers_renders_it(family, case):
    tokenizer, messages, entry = golden(family, case)
    text, ids = text_and_ids(tokenizer, messages)
    # The newline after the last turn is left out: no position is trained to predict it.
    assert text + "\n" == entry["conversation"]["text"]
    assert ids + tokenizer.encode_text("\n") == entry["conversation"]["ids"]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_a_prompt_reads_and_encodes_as_transformers_renders_it(family, case):
    tokenizer, messages, entry = golden(family, case)
    assert text_and_ids(tokenizer, messages[:-1], generate=True) == (entry["prompt"]["text"], entry["prompt"]["ids"])


@pytest.mark.parametrize("family", ["gemma3", "qwen3", "qwen25"])
def test_only_answers_and_their_stop_tokens_are_trained(family):
    tokenizer, messages, _ = golden(family, "three turns")
    trained = [piece.text for piece in tokenizer.chat_format.pieces(messages) if piece.trained]
    stop = tokenizer.chat_format.stop
    answers = [message.content for message in messages if message.role == "assistant"]
    assert trained == [text for answer in answers for text in (answer, stop)]


def test_a_training_conversation_begins_with_its_own_prompt():
    messages = conversation(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))
    for tokenizer in (tiny_tokenizer(), *(Tokenizer.from_folder(CHAT / family) for family in GOLDEN)):
        prompt = text_and_ids(tokenizer, messages[:-1], generate=True)[1]
        assert text_and_ids(tokenizer, messages)[1][: len(prompt)] == prompt


def test_the_tiny_format_is_compact():
    pieces = TINY.pieces(conversation(("system", "s"), ("user", "2+3?"), ("assistant", "5")))
    assert "".join(piece.text for piece in pieces) == "<bos><system>s<user>2+3?<model>5<end>"


def test_the_format_follows_from_the_control_tokens():
    chatml = ["<|im_start|>", "<|im_end|>"]
    assert choose_format(["<bos>", "<start_of_turn>", "<end_of_turn>"]) is GEMMA
    assert choose_format(chatml).default_system == QWEN25_SYSTEM
    assert choose_format([*chatml, "<think>", "</think>"]).last_header
    with pytest.raises(InputError, match="no known chat format"):
        choose_format(["<s>", "</s>"])


def test_chatml_variants_follow_the_models_own_template():
    controls = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    older = choose_format(
        controls, chat_template=r"{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    )
    assert older.default_system == "You are a helpful assistant."
    assert not older.last_header
    instruct = choose_format(controls, chat_template=r"{{- '<|im_start|>' + message.role + '\n' }}")
    assert instruct.default_system is None
    assert not instruct.last_header


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("assistant", "a")], "must be user's"),
        ([("user", "q"), ("user", "q")], "must be assistant's"),
        ([("user", "q"), ("system", "s"), ("assistant", "a")], "must be assistant's"),
        ([("user", "q")], "must end with a message of the assistant"),
        ([("system", "s")], "must end with a message of the assistant, got none"),
        ([], "got none"),
    ],
)
def test_turns_that_do_not_alternate_are_refused(turns, reason):
    with pytest.raises(InputError, match=reason):
        check_turns(conversation(*turns), answered=True)
    check_turns(conversation(("system", "s"), ("user", "q"), ("assistant", "a")), answered=True)


def test_a_prompt_ends_with_the_user():
    with pytest.raises(InputError, match="must end with a message of the user"):
        TINY.pieces(conversation(("user", "q"), ("assistant", "a")), generate=True)
    assert TINY.pieces(conversation(("user", "q")), generate=True)[-1].text == "<model>"
