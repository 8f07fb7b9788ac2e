"""Stratified splits: exact shares, whole problems, one outcome for one seed."""

import random

import pytest

from tracetune.core.errors import InputError
from tracetune.data.strata import stratified_split

SHARES = {"train": 0.8, "eval": 0.1, "test": 0.1}


def split(rows, shares=SHARES, seed=42):
    """Rows are (key, stratum)."""
    return stratified_split(rows, key_of=lambda row: row[0], stratum_of=lambda row: row[1], shares=shares, seed=seed)


def drawn(sizes):
    rows = [(f"{stratum}-{index}", stratum) for stratum, size in sizes.items() for index in range(size)]
    random.Random(0).shuffle(rows)
    return rows


@pytest.mark.parametrize(
    "shares", [SHARES, {"train": 1 / 3, "eval": 2 / 3}, {"train": 0.97, "eval": 0.02, "test": 0.01}]
)
def test_each_side_has_its_share_of_each_stratum_and_of_the_whole(shares):
    sizes = {"1": 500, "2": 37, "3": 10, "4": 3, "": 81} | {f"small {index}": 1 for index in range(60)}
    rows = drawn(sizes)
    sides = split(rows, shares)
    for side, share in shares.items():
        assert abs(len(sides[side]) - share * len(rows)) < 2
        for stratum, size in sizes.items():
            assert abs(sum(row[1] == stratum for row in sides[side]) - share * size) < 2


def test_every_row_is_on_one_side_in_its_order():
    rows = drawn({"a": 40, "b": 17})
    sides = split(rows)
    assert list(sides) == list(SHARES)
    assert sorted(row for side in sides.values() for row in side) == sorted(rows)
    for side in sides.values():
        assert side == sorted(side, key=rows.index)


def test_one_problem_is_never_on_two_sides_even_when_its_strata_differ():
    rows = [(f"k{index % 30}", f"grade {index % 7}") for index in range(300)]
    sides = split(rows)
    seen = [{key for key, _ in side} for side in sides.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 30
    # Without the grouping the same rows do part: the claim above is not empty.
    parted = stratified_split(
        list(enumerate(rows)), key_of=lambda row: str(row[0]), stratum_of=lambda row: row[1][1], shares=SHARES, seed=42
    )
    kept = [{row[1][0] for row in side} for side in parted.values()]
    assert sum(map(len, kept)) > 30


def test_the_order_of_the_rows_changes_nothing_and_the_seed_does():
    rows = drawn({"a": 60, "b": 60})
    sides = split(rows)
    again = split(rows[::-1])
    assert {name: set(side) for name, side in sides.items()} == {name: set(side) for name, side in again.items()}
    assert split(rows, seed=43) != sides


def test_a_share_of_nothing_gets_nothing():
    assert split(drawn({"a": 50}), {"train": 1.0, "eval": 0.0})["eval"] == []


@pytest.mark.parametrize("shares", [{"train": 0.8, "eval": 0.1}, {}, {"train": 1.2, "eval": -0.2}, {"train": True}])
def test_shares_that_are_no_whole_are_refused(shares):
    with pytest.raises(InputError, match="split"):
        split(drawn({"a": 5}), shares)


def test_problems_of_many_rows_weigh_as_many():
    rows = [(f"often {index % 20}", "a") for index in range(200)] + [(f"once {index}", "a") for index in range(200)]
    sides = split(rows, {"train": 0.8, "eval": 0.2})
    assert abs(len(sides["eval"]) - 80) <= 10
