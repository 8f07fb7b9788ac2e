import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracetune.models.load import load_model
from tracetune.models.tiny import tiny_arch, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def texts(content: str) -> list[str]:
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode_text(content)]


def test_the_tokenizer_is_the_same_on_every_call():
    again = tiny_tokenizer()
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.control_tokens == TOKENIZER.control_tokens


def test_digits_are_read_one_by_one():
    assert texts("12 + 345 = 357, so 7-5=2.") == [
        *("1", "2", " + ", "3", "4", "5", " = ", "3", "5", "7"),
        *(",", " so", " ", "7", "-", "5", "=", "2", "."),
    ]
    assert not any(re.search(r"\d.*\d", TOKENIZER.decode([token])) for token in range(TOKENIZER.vocab_size))


def test_the_words_of_the_built_in_tasks_are_single_tokens():
    prompt = "Ana has apples and gives some to Ben. How many apples are left?"
    assert len(texts(prompt)) == len(re.findall(r"\w+|[.?]", prompt))


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_text_survives(text):
    assert TOKENIZER.decode(TOKENIZER.encode_text(text)) == text


def test_a_saved_tiny_tokenizer_reads_back(tmp_path):
    TOKENIZER.save(tmp_path)
    again = type(TOKENIZER).from_folder(tmp_path)
    assert again.fingerprint == TOKENIZER.fingerprint
    assert again.chat_format.name == "tiny"
    assert again.stop_ids == {TOKENIZER.control_id("<end>")}
    assert (again.pad_id, again.bos_id) == (TOKENIZER.control_id("<pad>"), TOKENIZER.control_id("<bos>"))


def test_the_architecture_fits_the_tokenizer():
    arch = tiny_arch()
    assert arch.vocab_size == TOKENIZER.vocab_size
    assert arch == tiny_arch()


@pytest.mark.slow
def test_equal_seeds_give_equal_weights_of_one_to_five_million_parameters():
    import jax

    model = tiny_model(seed=0)
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert 1_000_000 <= size <= 5_000_000
    assert tiny_model(seed=0).fingerprint == model.fingerprint
    assert tiny_model(seed=1).fingerprint != model.fingerprint


def test_a_second_size_has_about_twice_the_parameters_and_the_same_tokenizer():
    small, large = tiny_arch(), tiny_arch("tiny-2x")
    assert 1.8 < large.num_params / small.num_params < 2.2
    assert large.vocab_size == small.vocab_size


def test_both_sizes_are_loaded_by_name():
    assert load_model("tiny_2x").arch == tiny_arch("tiny-2x")
    assert load_model("tiny").arch == tiny_arch()
