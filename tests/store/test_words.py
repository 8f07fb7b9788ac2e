"""Words are the same whatever the database: case, Unicode form and punctuation do not count."""

import pytest

from tracetune.core.trace import Step, Trace
from tracetune.store.traces import add_traces, list_traces
from tracetune.store.words import MAX_TRACE_CHARS, MAX_WORDS_BYTES, query_words, split_words, trace_words


def trace(prompt: str, answer: str = "a", *steps: str) -> Trace:
    return Trace("1.0", prompt, answer, tuple(Step(i, "kind", text) for i, text in enumerate(steps)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's 3.5+x?", ["what", "s", "3", "5", "x"]),
        ("ÉTÉ e\u0301te\u0301", ["été"]),
        ("Straße STRASSE", ["strasse"]),
        ("数学の問題 ok", ["数", "学", "の", "問", "題", "ok"]),
        ("ﬁve ５", ["five", "5"]),
        ("snake_case a-b\0c", ["snake", "case", "a", "b", "c"]),
        ("!? ", []),
        ("x" * 50 + " " + "x" * 60, ["x" * 40]),
    ],
)
def test_text_is_split_into_words(text, words):
    assert split_words(text) == words


def test_ascii_is_split_as_any_other_text():
    text = "".join(map(chr, range(1, 128))) * 2
    assert split_words(text + " é") == [*split_words(text), "é"]


def test_prompt_answer_and_steps_are_searched_and_nothing_else(store):
    add_traces(store, [trace("Prompt", "answer", "first", "second")])
    for word in ("prompt", "ANSWER", "First", "second"):
        assert len(list_traces(store, limit=1, q=word)) == 1
    assert list_traces(store, limit=1, q="kind") == list_traces(store, limit=1, q="1") == []


def test_a_word_is_found_whole_not_in_part(store):
    add_traces(store, [trace("apples")])
    assert list_traces(store, limit=1, q="apple") == []
    assert len(list_traces(store, limit=1, q="apples")) == 1


def test_the_start_of_a_very_long_trace_is_searched(store):
    long = trace("start", "a", *(["word " * 4_000] * 10), "beyond")
    assert sum(len(step.content) for step in long.steps) > MAX_TRACE_CHARS
    add_traces(store, [long, trace("beyond")])
    assert [row.seq for row in list_traces(store, limit=9, q="start")] == [1]
    assert [row.seq for row in list_traces(store, limit=9, q="beyond")] == [2]


def test_a_trace_of_very_many_words_can_be_stored_and_found(store):
    chars = [chr(code) for code in range(0x10400, 0x10450)]
    many = trace(" ".join(f"{one}{two}{three}" for one in chars[:20] for two in chars for three in chars[:6]), "a")
    huge = trace("start", "a", *(" ".join(f"{number}x{i}" for i in range(2_000)) for number in range(10)))
    assert sum(len(word.encode()) for word in trace_words(huge)) <= MAX_WORDS_BYTES
    add_traces(store, [many, huge])
    assert [row.seq for row in list_traces(store, limit=9, q=f"{chars[3]}{chars[70]}{chars[5]}")] == [1]
    assert [row.seq for row in list_traces(store, limit=9, q="9x1999")] == [2]


def test_words_of_a_query_are_those_of_a_text():
    assert query_words("Tom's ÉTÉ, tom") == ["tom", "s", "été"]
