"""The trace browser's state as an address, and which values of meta are worth showing."""

from pathlib import Path

from tracetune.app.traces import add_traces
from tracetune.core.trace import Step, Trace
from tracetune.web.facets import Browsing, facet_groups, label, leaves, telling_words


def trace(**meta: object) -> Trace:
    return Trace("1.0", "p", "a", (Step(0, "s", "c"),), meta)


def test_a_filter_is_added_changed_and_taken_away() -> None:
    empty = Browsing("sum of", {})
    one = empty.toggled("source", "book")
    assert one.url() == "/traces?q=sum+of&source=book"
    assert one.toggled("source", "web").url() == "/traces?q=sum+of&source=web"
    assert one.toggled("source", "book") == empty
    assert one.toggled("task.grade", "3").build_url() == "/datasets/new?filter=source%3Dbook&filter=task.grade%3D3"


def test_leaves_have_dotted_paths_and_end() -> None:
    meta = {"a": {"b": [1, {"c": None}]}, "d": [], "e": True}
    assert list(leaves(meta)) == [("a.b", 1), ("a.b.c", None), ("d", []), ("e", True)]
    assert len(list(leaves({str(index): index for index in range(10_000)}))) <= 200


def test_a_value_is_labelled_as_it_is_typed() -> None:
    assert [label(value) for value in ("3", 3, None, True, 0.5)] == ["3", "3", "null", "true", "0.5"]


def test_words_tell_traces_apart() -> None:
    shown = [trace(source="book", result="win", id="a" * 99), trace(source="book", result="loss", id="b" * 99)]
    assert telling_words(shown) == [["result win"], ["result loss"]]
    assert telling_words(shown[:1]) == [["source book", "result win"]], "one alone has nothing in common"


def test_an_id_is_no_facet_and_a_picked_value_is_marked(home: Path) -> None:
    shown = [trace(source="book", kind="sum", key=f"id-{index}") for index in range(6)]
    add_traces(shown)
    groups = {group["key"]: group["values"] for group in facet_groups(Browsing(None, {"kind": "sum"}), shown, home)}
    assert list(groups) == ["kind", "source"]
    (value,) = groups["kind"]
    assert (value["label"], value["total"], value["picked"], value["url"]) == ("sum", 6, True, "/traces")
