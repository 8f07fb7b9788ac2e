"""What an epoch sees of several files: so many of each, equally often, and the same for ever."""

from collections import Counter

import pytest

from tracetune.data.mix import Part, drawn_in, num_drawn

PARTS = (Part(0, 6, 1.0), Part(6, 10, 2.0), Part(10, 20, 0.3))


def test_an_epoch_sees_of_each_file_its_weight_times_its_rows():
    drawn = drawn_in(PARTS, seed=1, epoch=0)
    assert [index for index in drawn if index < 6] == list(range(6))
    assert [index for index in drawn if 6 <= index < 10] == [6, 6, 7, 7, 8, 8, 9, 9]
    assert len([index for index in drawn if index >= 10]) == len({index for index in drawn if index >= 10}) == 3
    assert len(drawn) == num_drawn(PARTS, 0) == 17


@pytest.mark.parametrize("weight", [0.25, 0.3, 1 / 3, 0.5, 1.0, 1.5, 2.7])
def test_over_epochs_the_rows_of_a_file_come_equally_often(weight):
    seen = Counter[int]()
    for epoch in range(40):
        seen.update(drawn_in([Part(3, 13, weight)], seed=5, epoch=epoch))
        counts = [seen[index] for index in range(3, 13)]
        assert max(counts) - min(counts) <= 1
        assert abs(sum(counts) - weight * 10 * (epoch + 1)) < 1


def test_half_a_file_is_another_half_in_the_next_epoch():
    halves = [drawn_in([Part(0, 20, 0.5)], seed=2, epoch=epoch) for epoch in range(4)]
    assert sorted(halves[0] + halves[1]) == sorted(halves[2] + halves[3]) == list(range(20))
    assert halves[0] != halves[2]


def test_seed_and_epoch_alone_decide_what_is_drawn():
    assert drawn_in(PARTS, seed=1, epoch=3) == drawn_in(PARTS, seed=1, epoch=3)
    assert drawn_in(PARTS, seed=1, epoch=3) != drawn_in(PARTS, seed=2, epoch=3)


def test_files_of_one_size_and_weight_are_drawn_from_apart():
    drawn = drawn_in([Part(0, 20, 0.5), Part(20, 40, 0.5)], seed=1, epoch=0)
    assert [index for index in drawn if index < 20] != [index - 20 for index in drawn if index >= 20]
