"""What a teacher said is kept as it was said, by what it was asked, and is read again whole."""

import json
from typing import Any

import pytest

from tracetune.app.distill_prompts import PromptRow
from tracetune.app.teacher_answers import teacher_rows
from tracetune.app.traces import list_traces
from tracetune.config.distill_schema import TeacherSettings
from tracetune.core.errors import Corrupt
from tracetune.core.values import Completion, Message
from tracetune.models.tiny import SETTINGS, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer

ROWS = (PromptRow("a", (Message("user", "Why?"),), ""),)


class Sayer:
    """A teacher that says one thing, and counts."""

    identity = "sayer"

    def __init__(self, text: str, tokenizer: Tokenizer | None = None) -> None:
        self.text, self.tokenizer, self.asked = text, tokenizer, 0

    def answer(self, prompts, *, seeds):
        assert len(seeds) == len(prompts)
        self.asked += len(prompts)
        return [Completion((), (), self.text, "stop") for _ in prompts]

    def likeliest(self, sequences, k, *, temperature=1.0):
        raise AssertionError(f"answers are enough, got {len(sequences)}, {k}, {temperature}")

    def logprobs(self, sequences):
        raise AssertionError(f"answers are enough, got {len(sequences)}")


def learnt(teacher: Any, home) -> str:
    (row,) = teacher_rows(teacher, ROWS, TeacherSettings(), seed=0, home=home).rows
    return row.messages[-1].content


def test_answers_with_any_line_break_are_kept_and_read_again(home):
    text = "one\u2028two\u2029three\u0085four\r\nfive\x0bsix"
    sayer = Sayer(text)
    assert [learnt(sayer, home), learnt(sayer, home)] == [text, text]
    assert sayer.asked == 1
    (kept,) = home.glob("teachers/*/answers-*.jsonl")
    kept.write_bytes(kept.read_bytes()[:-5] + b"\n")
    with pytest.raises(Corrupt, match="is not what was kept of a teacher"):
        learnt(sayer, home)


def test_a_nul_of_an_answer_reaches_no_store(home):
    assert learnt(Sayer("a\0b"), home) == "a\ufffdb"
    (trace,) = list_traces(limit=9, filters={"source": "teacher"}, home=home).items
    assert trace.trace.final_answer == "a\ufffdb"
    assert (trace.trace.meta or {})["response"] == "a\ufffdb"


def test_another_tokenizer_or_chat_format_is_asked_anew(home):
    source = tiny_tokenizer()._source
    other = json.loads(source)
    vocabulary = other["model"]["vocab"]
    vocabulary["apples"], vocabulary["oranges"] = vocabulary["oranges"], vocabulary["apples"]
    written = Tokenizer.from_json(source, settings=SETTINGS)
    written.chat_format = tiny_tokenizer().chat_format.__class__(
        **{**vars(tiny_tokenizer().chat_format), "default_system": "Be brief."}
    )
    kinds = (None, tiny_tokenizer(), Tokenizer.from_json(json.dumps(other), settings=SETTINGS), written)
    for tokenizer in kinds:
        for times in (1, 0):
            sayer = Sayer("five", tokenizer)
            learnt(sayer, home)
            assert sayer.asked == times
