"""The Modelfile: the chat format as a Go template, rendered here by a reader of the few words that it uses."""

import json
import re
from dataclasses import replace

import pytest

from tracetune.core.values import Message
from tracetune.models.ollama import go_template, modelfile, stop_names
from tracetune.models.templates import EMPTY_THINKING, GEMMA, QWEN, QWEN25_SYSTEM, TINY
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

CONVERSATIONS = [
    [Message("user", "Why?")],
    [Message("system", "Be brief."), Message("user", "Why?")],
    [Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c\nd")],
]


def render_go(template: str, messages: list[Message]) -> str:
    """The template as text/template evaluates it, by turning its words into Python's."""
    code, depth = ["def run(system_, messages, out):"], 1

    def put(line: str) -> None:
        code.append("  " * depth + line)

    for text, action in re.findall(r"(.*?)(?:\{\{(.*?)\}\}|\Z)", template, re.DOTALL):
        if text:
            put(f"out.append({text!r})")
        words = action.strip()
        if not words:
            continue
        if words == "end":
            depth -= 1
        elif words.startswith("else if "):
            depth -= 1
            put(f"elif {expression(words[8:])}:")
            depth += 1
        elif words.startswith("if "):
            put(f"if {expression(words[3:])}:")
            depth += 1
        elif words.startswith("range "):
            put("for i, message in enumerate(messages):")
            depth += 1
        elif found := re.fullmatch(r"\$(\w+) :?= (.*)", words):
            put(f"{found[1]} = {expression(found[2])}")
        else:
            put(f"out.append({expression(words)})")
    scope: dict = {}
    exec("\n".join(code), scope)
    out: list[str] = []
    scope["run"](next((m.content for m in messages if m.role == "system"), ""), messages, out)
    return "".join(out)


def expression(words: str) -> str:
    known = {
        ".System": "system_",
        ".Content": "message.content",
        "$system": "system",
        "$last": "last",
        "not $last": "not last",
        '""': "''",
        "eq (len (slice $.Messages $i)) 1": "len(messages[i:]) == 1",
        'eq .Role "user"': "message.role == 'user'",
        'eq .Role "assistant"': "message.role == 'assistant'",
    }
    return known[words]


FORMATS = [
    GEMMA,
    TINY,
    replace(QWEN, last_header=EMPTY_THINKING),
    replace(QWEN, default_system=QWEN25_SYSTEM),
]


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["alone", "system", "turns"])
@pytest.mark.parametrize("chat", FORMATS, ids=lambda chat: chat.name)
def test_the_go_template_writes_what_the_format_renders(chat, messages):
    expected = "".join(piece.text for piece in chat.pieces(messages, generate=True)).removeprefix(chat.bos or "")
    if chat.default_system is not None and messages[0].role != "system":
        # Ollama puts the Modelfile's SYSTEM in front.
        messages = [Message("system", chat.default_system), *messages]
    assert render_go(go_template(chat), messages) == expected


def test_an_answer_that_is_begun_is_not_closed():
    written = render_go(go_template(GEMMA), [Message("user", "a"), Message("assistant", "b")])
    assert written.endswith("<start_of_turn>model\nb")


def test_the_modelfile_names_weights_template_and_stops():
    text = modelfile(tiny_tokenizer(), source=".")
    assert text.startswith('FROM .\nTEMPLATE """')
    assert 'PARAMETER stop "<end>"\n' in text
    assert "ADAPTER" not in text
    assert "ADAPTER .\n" in modelfile(tiny_tokenizer(), source="base", adapter=".")


def test_a_default_system_text_stands_in_the_modelfile(fixtures):
    tokenizer = Tokenizer.from_folder(fixtures / "chat" / "qwen25")
    text = modelfile(tokenizer, source=".")
    assert f'SYSTEM """{QWEN25_SYSTEM}"""' in text
    assert "<|im_end|>" in stop_names(tokenizer)


def test_a_tokenizer_without_a_known_format_gets_no_template():
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<pad>"}
    plain = json.loads(tiny_tokenizer()._source)
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] == "<pad>"]
    text = modelfile(Tokenizer.from_json(json.dumps(plain), settings=settings), source=".")
    assert 'TEMPLATE """' not in text
    assert text.endswith('PARAMETER stop "<pad>"\n')
