import pytest

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, Trace
from tracetune.data.select import check_selection, random_order


def trace(prompt: str = "p", **meta) -> Trace:
    return Trace("1.0", prompt, "a", (Step(0, "s", "c"),), meta)


def hashed(*prompts: str) -> list[tuple[int, str]]:
    return [(ord(prompt), trace(prompt).content_hash()) for prompt in prompts]


def test_random_depends_on_content_and_seed_alone():
    rows = hashed(*"abcdefghij")
    order = list(random_order(rows, 7))
    assert sorted(order) == [number for number, _ in rows] != order
    assert list(random_order(rows[::-1], 7)) == order
    assert list(random_order(rows, 8)) != order
    fewer = [row for row in rows if row[0] != order[3]]
    assert list(random_order(fewer, 7)) == [number for number in order if number != order[3]]


def test_random_is_the_same_on_every_machine():
    assert list(random_order(hashed(*"abcde"), 42))[:3] == [ord("e"), ord("c"), ord("d")]
    assert list(random_order([], 42)) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"strategy": "oldest"}, "selection_strategy"),
        ({"strategy": "random", "seed": None}, "seed"),
        ({"seed": True}, "seed"),
        ({"limit": 0}, "limit"),
        ({"limit": 1_000_001}, "limit"),
        ({"limit": True}, "limit"),
    ],
)
def test_unusable_settings_are_refused_by_name(change, where):
    usable = {"strategy": "random", "limit": 1, "seed": 1}
    with pytest.raises(InputError, match=f"dataset.{where}: "):
        check_selection(**usable | change)
    check_selection(**usable)
