"""How sequences are put together to be scored: each once, padded to few shapes and no more than it takes."""

import pytest

from tracetune.engine.scoring import BATCH_TOKENS, in_buckets


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        # Three short ones join the others: apart, their pass would have the rows of all.
        ([20] * 3 + [70] * 29, [(32, 128)]),
        # Twenty fill most of theirs.
        ([40] * 20 + [70] * 12, [(32, 64), (16, 128)]),
        # Padded to the long one's length, three short ones would cost more than a pass of their own.
        ([10] * 3 + [1500], [(4, 32), (1, 2048)]),
        ([5], [(1, 32)]),
        ([], []),
    ],
)
def test_a_pass_pads_no_more_than_it_must(lengths, shapes):
    sequences = [[1] * length for length in reversed(lengths)]
    found = list(in_buckets(sequences))
    assert [tokens_BT.shape for _, tokens_BT in found] == shapes
    assert all(tokens_BT.size <= BATCH_TOKENS for _, tokens_BT in found)
    assert sorted(place for places, _ in found for place in places) == list(range(len(lengths)))
    for places, tokens_BT in found:
        assert tokens_BT.sum(axis=1).tolist()[: len(places)] == [len(sequences[place]) for place in places]
