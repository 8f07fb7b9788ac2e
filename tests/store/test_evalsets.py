import pytest

from tracetune.core.errors import Conflict, InputError
from tracetune.core.values import Problem
from tracetune.store.evalsets import iter_evalsets, register_evalset

PROBLEMS = [Problem("a", "1 + 1?", "2", "sum", "easy", {"tags": ["x"]}), Problem("b", "Zwölf?", "12")]


def test_a_registered_set_comes_back_equal_in_the_order_of_registration(store):
    registered = [register_evalset(store, name, PROBLEMS[:count]) for name, count in (("z", 2), ("a", 1))]
    assert list(iter_evalsets(store)) == registered
    assert registered[0].problems == tuple(PROBLEMS)


def test_the_same_content_again_changes_nothing(store):
    assert register_evalset(store, "z", PROBLEMS) == register_evalset(store, "z", list(PROBLEMS))
    assert len(list(iter_evalsets(store))) == 1


def test_a_name_never_changes_its_content(store):
    first = register_evalset(store, "z", PROBLEMS)
    with pytest.raises(Conflict, match=r"evalset z: .*new name"):
        register_evalset(store, "z", PROBLEMS[:1])
    assert list(iter_evalsets(store)) == [first]
    assert register_evalset(store, "z-2", PROBLEMS[:1]).name == "z-2"


def test_the_hash_stands_for_the_problems_not_for_the_name(store):
    one, other = register_evalset(store, "one", PROBLEMS), register_evalset(store, "other", PROBLEMS)
    assert one.content_hash == other.content_hash
    assert register_evalset(store, "third", PROBLEMS[::-1]).content_hash != one.content_hash


@pytest.mark.parametrize(("name", "problems"), [("", PROBLEMS), ("n" * 129, PROBLEMS), ("empty", [])])
def test_a_set_that_cannot_be_kept_is_refused(store, name, problems):
    with pytest.raises(InputError, match="evalset"):
        register_evalset(store, name, problems)
    assert list(iter_evalsets(store)) == []
