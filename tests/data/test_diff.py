from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.data.diff import Change, diff_rows, row_key


def keys(*rows: tuple[str, str]) -> list:
    traces = {f"{prompt}/{answer}": Trace("1.0", prompt, answer, (Step(0, "s", "c"),)) for prompt, answer in rows}
    return [row_key(StoredTrace(name, "t", trace)) for name, trace in traces.items()]


def test_rows_are_added_removed_changed_or_the_same():
    before = keys(("same", "1"), ("gone", "1"), ("edited", "old"))
    after = keys(("same", "1"), ("new", "1"), ("edited", "new"))
    found = diff_rows(before, after)
    assert found.added == ("new/1",)
    assert found.removed == ("gone/1",)
    assert found.changed == (Change("edited/old", "edited/new"),)
    assert (found.num_unchanged, found.reordered) == (1, False)


def test_several_answers_to_one_prompt_are_paired_in_order_and_the_rest_counted():
    found = diff_rows(keys(("p", "1"), ("p", "2"), ("p", "3")), keys(("P ", "4"), ("p", "2"), ("p", "5"), ("p", "6")))
    assert found.changed == (Change("p/1", "P /4"), Change("p/3", "p/5"))
    assert (found.added, found.removed, found.num_unchanged) == (("p/6",), (), 1)


def test_a_dataset_equals_itself_and_another_order_is_told():
    rows = keys(("a", "1"), ("b", "1"), ("c", "1"))
    assert diff_rows(rows, rows) == ((), (), (), 3, False)
    assert diff_rows(rows, rows[::-1]) == ((), (), (), 3, True)
    assert not diff_rows(rows, [rows[0], rows[2]]).reordered
