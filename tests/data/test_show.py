from hypothesis import given, settings
from hypothesis import strategies as st

from tracetune.core.values import Message
from tracetune.data.render import render
from tracetune.data.show import token_spans
from tracetune.models.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def test_spans_show_what_is_trained_and_what_is_control():
    example = render((Message("user", "2+3?"), Message("assistant", "5")), TOKENIZER, trace_id="t-1")
    spans = token_spans(example, TOKENIZER)
    assert [span.text for span in spans] == ["<bos>", "<user>", "2", "+", "3", "?", "<model>", "5", "<end>"]
    assert [span.text for span in spans if span.trained] == ["5", "<end>"]
    assert [span.text for span in spans if span.control] == ["<bos>", "<user>", "<model>", "<end>"]


def test_the_tokens_of_one_character_stand_together():
    example = render((Message("user", "é?"), Message("assistant", "八😀")), TOKENIZER, trace_id="t-1")
    assert [span.text for span in token_spans(example, TOKENIZER)] == [
        *("<bos>", "<user>", "é", "?", "<model>", "八", "😀", "<end>"),
    ]


@settings(deadline=None)
@given(question=st.text(min_size=1), answer=st.text(min_size=1))
def test_spans_are_the_whole_example_in_order(question, answer):
    example = render((Message("user", question), Message("assistant", answer)), TOKENIZER, trace_id="t-1")
    spans = token_spans(example, TOKENIZER)
    assert tuple(token for span in spans for token in span.tokens) == example.tokens
    assert "".join(span.text for span in spans) == f"<bos><user>{question}<model>{answer}<end>"
    assert sum(len(span.tokens) for span in spans if span.trained) == example.num_targets
