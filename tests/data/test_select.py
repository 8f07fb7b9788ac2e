import pytest

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.data.select import select_ids


def trace(prompt: str = "p", **meta) -> Trace:
    return Trace("1.0", prompt, "a", (Step(0, "s", "c"),), meta)


def stored(*prompts: str) -> list[StoredTrace]:
    return [StoredTrace(f"id-{prompt}", "t", trace(prompt)) for prompt in prompts]


def test_latest_takes_the_first_of_the_stream_and_no_more():
    def stream():
        yield from stored("c", "b")
        raise AssertionError("read further than needed")

    assert select_ids(stream(), filters={}, limit=2, strategy="latest") == ["id-c", "id-b"]


def test_random_depends_on_content_and_seed_alone():
    rows = stored(*"abcdefghij")
    chosen = select_ids(rows, filters={}, limit=4, strategy="random", seed=7)
    assert len(set(chosen)) == 4
    assert select_ids(rows[::-1], filters={}, limit=4, strategy="random", seed=7) == chosen
    assert select_ids(rows, filters={}, limit=4, strategy="random", seed=8) != chosen
    assert select_ids(rows, filters={}, limit=10, strategy="random", seed=7)[:4] == chosen


def test_random_is_the_same_on_every_machine():
    assert select_ids(stored(*"abcde"), filters={}, limit=3, strategy="random", seed=42) == ["id-e", "id-c", "id-d"]


def test_filters_come_before_the_limit():
    rows = [StoredTrace(str(i), "t", trace(f"p{i}", kind="odd" if i % 2 else "even")) for i in range(100)]
    assert select_ids(rows, filters={"kind": "odd"}, limit=3, strategy="latest") == ["1", "3", "5"]


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
        select_ids(stored("a"), filters={}, **usable | change)
    assert select_ids(stored("a"), filters={}, **usable) == ["id-a"]
