"""Each completion trains exactly its own tokens, after its own prompt, however rows are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracetune.core.errors import InputError
from tracetune.data.pack_groups import Branch, Group, num_rows_needed, pack_groups

LONGEST_STEM, LONGEST, ROW = 6, 5, 16
branches = st.lists(st.integers(1, 90), min_size=1, max_size=LONGEST).map(
    lambda tokens: Branch(tokens, float(sum(tokens)), [-float(token) for token in tokens])
)
groups = st.builds(
    Group,
    st.lists(st.integers(1, 90), min_size=1, max_size=LONGEST_STEM + 1),
    st.lists(branches, max_size=5),
)


def unpack(batch) -> list[tuple]:
    """Every branch as its row tells it: prompt, tokens, credit, log-probs."""
    found = []
    for row in range(batch.tokens_BT.shape[0]):
        segments = batch.segments_BT[row]
        for segment in sorted(set(segments[batch.weights_BT[row] > 0].tolist())):
            span = np.flatnonzero(segments == segment)
            start, end = batch.stem_starts_BT[row, span[0]], batch.stem_ends_BT[row, span[0]]
            stem = batch.tokens_BT[row, start:end].tolist()
            assert batch.positions_BT[row, start:end].tolist() == list(range(end - start))
            assert batch.positions_BT[row, span].tolist() == list(range(end - start, end - start + len(span)))
            assert (np.diff(span) == 1).all()
            targets = batch.targets_BT[row, span].tolist()
            assert batch.tokens_BT[row, span[1:]].tolist() == targets[:-1]
            prompt = [*stem, int(batch.tokens_BT[row, span[0]])]
            found.append((prompt, targets, batch.advantages_BT[row, span[0]], batch.sampled_BT[row, span].tolist()))
    return found


@given(st.lists(groups, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_completion_is_there_once_behind_its_prompt(made):
    rows = num_rows_needed(len(made), 5, longest_stem=LONGEST_STEM, longest=LONGEST, row_length=ROW)
    batch = pack_groups(made, row_length=ROW, num_rows=rows, pad_id=0)
    wanted = [
        (list(group.prompt), list(branch.tokens), branch.advantage, list(branch.policy_logprobs))
        for group in made
        for branch in group.branches
    ]
    assert sorted(unpack(batch)) == sorted(wanted)


def test_a_prompt_is_written_once_for_all_that_share_a_row():
    group = Group([1, 2, 3, 4], [Branch([5, 6], 1.0, [0.0, 0.0])] * 4)
    shared = pack_groups([group], row_length=11, num_rows=1, pad_id=0)
    assert int((shared.segments_BT > 0).sum()) == 3 + 4 * 2
    apart = pack_groups([group], row_length=5, num_rows=4, pad_id=0)
    assert int((apart.segments_BT > 0).sum()) == 4 * (3 + 2)


def test_what_does_not_fit_is_refused():
    group = Group([1, 2, 3], [Branch([5, 6], 1.0, [0.0, 0.0])] * 2)
    with pytest.raises(InputError, match="4 tokens, over the row's 3"):
        pack_groups([group], row_length=3, num_rows=9, pad_id=0)
    with pytest.raises(InputError, match="need 2 rows of 4 tokens, more than 1"):
        pack_groups([group], row_length=4, num_rows=1, pad_id=0)
    assert unpack(pack_groups([group], row_length=4, num_rows=2, pad_id=0))
