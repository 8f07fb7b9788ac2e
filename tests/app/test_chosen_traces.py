"""Chosen traces join a dataset as a new version; what was frozen stays."""

from pathlib import Path

import pytest

from tracetune.app.chosen_traces import build_from_traces
from tracetune.app.datasets import build_dataset, open_dataset, register_evalset
from tracetune.app.duels import generate_duels
from tracetune.app.traces import add_traces, delete_trace
from tracetune.core.errors import InputError, NotFound
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem


def stored(prompt: str) -> str:
    return add_traces([Trace("1.0", prompt, "5", (Step(0, "compute", f"so {prompt}"),))]).heads[0].id


def test_the_parent_s_rows_come_first_even_when_their_traces_are_gone(home: Path) -> None:
    first, second = stored("one?"), stored("two?")
    old = build_dataset("sums", "v1")
    delete_trace(first)
    new = build_from_traces("sums", "v2", [stored("three?"), second], parent="sums-v1")
    assert new.trace_ids[:2] == old.trace_ids
    assert len(new.trace_ids) == 3, "a trace that the parent has is not added again"
    assert open_dataset("sums-v1").manifest == old
    assert (new.selection_strategy, new.origin.parent_dataset_id) == ("chosen", "sums-v1")


def test_what_an_eval_set_asks_and_what_is_there_already_is_left_out(home: Path) -> None:
    register_evalset([Problem("a", "What is 2 + 3 in the ring?", "5")], "test")
    asked, kept, again = stored("What is 2 + 3 in the ring?"), stored("other?"), stored("Other?")
    manifest = build_from_traces("mine", "v1", [asked, kept, again])
    assert manifest.trace_ids == (kept,)
    assert (manifest.contamination["rows_dropped"], manifest.dedup["exact"]["dropped"]) == (1, 1)


def test_the_same_choice_again_is_the_same_build(home: Path) -> None:
    ids = generate_duels(count=3, seed=1, style="reasoned").trace_ids
    first, second = (build_from_traces("d", "v1", ids) for _ in range(2))
    assert first == second


def test_a_trace_that_is_not_there_is_named(home: Path) -> None:
    unknown = "00000000-0000-8000-8000-000000000000"
    with pytest.raises(NotFound, match=unknown):
        build_from_traces("d", "v1", [stored("one?"), unknown])
    with pytest.raises(InputError, match="1 to"):
        build_from_traces("d", "v1", [])
    with pytest.raises(NotFound, match="Dataset not found"):
        build_from_traces("d", "v1", [stored("one?")], parent="none")
