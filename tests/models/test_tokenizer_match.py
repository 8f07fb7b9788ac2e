import json

import pytest

from tracetune.models.tiny import SETTINGS, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.tokenizer_match import first_mismatch


def other(change=None) -> Tokenizer:
    """`tiny`'s tokenizer, its vocabulary changed."""
    source = json.loads(tiny_tokenizer()._source)
    if change is not None:
        change(source)
    return Tokenizer.from_json(json.dumps(source), settings=SETTINGS)


def test_the_same_vocabulary_matches_whoever_loaded_it():
    assert first_mismatch(other(), tiny_tokenizer()) is None


def test_two_tokens_that_changed_places_are_named_with_both_ids():
    def swap(source):
        vocabulary = source["model"]["vocab"]
        vocabulary["apples"], vocabulary["oranges"] = vocabulary["oranges"], vocabulary["apples"]

    apples = tiny_tokenizer().vocabulary["apples"]
    oranges = tiny_tokenizer().vocabulary["oranges"]
    assert first_mismatch(other(swap), tiny_tokenizer()) == (
        f"the token 'apples' has the id {oranges} in the teacher's and has the id {apples} in the student's"
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_token_that_only_one_of_them_has_is_named(turned):
    def add(source):
        source["added_tokens"].append({**source["added_tokens"][-1], "id": 5000, "content": "<extra>"})

    pair = (other(add), tiny_tokenizer())
    told = first_mismatch(*(pair[::-1] if turned else pair))
    assert told is not None
    assert "'<extra>'" in told
    assert "does not exist" in told
