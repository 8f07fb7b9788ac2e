"""What an inspector sees: groups by how much they teach, rewards by value, tokens that add up to the text."""

from tracetune.app.rollout_views import MAX_BINS, pieces, reward_bins, summarize
from tracetune.models.tiny import tiny_tokenizer


def row(reward, **more):
    return {"prompt": "Do.\n\nWhat?", "gold": "4", "reward": reward, "error": None, **more}


GROUPS = {
    "even": [row(1.0), row(1.0)],
    "wide": [row(-1.0), row(3.0)],
    "broken": [row(None, error="raised"), row(0.5)],
    "lost": [row(None, error="raised")],
}


def test_the_widest_spread_stands_first_and_equal_rewards_have_none():
    found = summarize(GROUPS)
    assert [group.problem_id for group in found] == ["wide", "even", "broken", "lost"]
    assert [group.spread for group in found] == [2.0, 0.0, 0.0, 0.0]
    assert [group.num_errors for group in found] == [0, 0, 1, 1]
    assert found[0].question == "What?"


def test_the_best_mean_stands_first_and_a_group_without_one_last():
    assert [group.problem_id for group in summarize(GROUPS, "mean")] == ["even", "wide", "broken", "lost"]
    assert [group.problem_id for group in summarize(GROUPS, "drawn")] == list(GROUPS)


def test_bins_hold_every_reward_once():
    many = summarize({"a": [row(place / 7) for place in range(100)], "b": [row(None, error="x")]})
    bins = reward_bins(many)
    assert len(bins) == MAX_BINS
    assert sum(bin.total for bin in bins) == 100
    assert (bins[0].low, bins[-1].high) == (0.0, 99 / 7)
    assert reward_bins(summarize({"b": [row(None, error="x")]})) == []


def test_tokens_as_text_add_up_to_the_text_even_amid_a_character():
    tokenizer = tiny_tokenizer()
    for text in ("Answer: 42", "naïve 🙂 日本", "a\n\nb"):
        tokens = tokenizer.encode_text(text)
        told = list(pieces(tokens, [-0.5] * len(tokens), tokenizer))
        assert "".join(piece.text for piece in told) == tokenizer.decode(tokens)


def test_a_token_is_toned_by_how_unlikely_it_was():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode_text("a b c d e")[:5]
    told = list(pieces(tokens, [0.0, -0.5, -1.0, -3.0, -9.0], tokenizer))
    assert [piece.tone for piece in told] == [0, 1, 2, 3, 4]
