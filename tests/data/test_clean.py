import pytest

from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.core.values import EvalSet, Problem
from tracetune.data.clean import Cleaning, clean
from tracetune.data.decontaminate import ContaminationCheck

EVAL = EvalSet("eval", "hash", (Problem("e-1", "What is 1 + 1?", "2"),))
STORY = "The old miller counted 12 sacks of flour before breakfast and carried every one of them up to the top floor"


def rows(*prompts: str) -> list[StoredTrace]:
    traces = [Trace("1.0", prompt, "a", (Step(0, "s", "c"),), {"row": i}) for i, prompt in enumerate(prompts)]
    return [StoredTrace(f"t-{i}", "t", trace) for i, trace in enumerate(traces)]


def kept(given: list[StoredTrace], **cleaning) -> list[str]:
    settings = Cleaning(**cleaning)
    cleaned = clean(lambda: given, ContaminationCheck([EVAL], settings.contamination), settings)
    return [row.id for row in cleaned.keep(given)]


GIVEN = rows("What is 1 + 1?", "other", "Other", STORY, STORY.replace("old", "young"))


@pytest.mark.parametrize(
    ("cleaning", "expected"),
    [
        ({}, ["t-1", "t-3"]),
        ({"contamination": "keep"}, ["t-0", "t-1", "t-3"]),
        ({"near_dedup": None}, ["t-1", "t-3", "t-4"]),
        ({"exact_dedup": False}, ["t-1", "t-2", "t-3"]),
        ({"exact_dedup": False, "near_dedup": None, "contamination": "keep"}, ["t-0", "t-1", "t-2", "t-3", "t-4"]),
    ],
)
def test_each_kind_of_cleaning_drops_its_own_rows(cleaning, expected):
    assert kept(GIVEN, **cleaning) == expected


def test_the_verdict_names_which_row_stood_for_which():
    cleaned = clean(lambda: GIVEN, ContaminationCheck([EVAL]), Cleaning(near_dedup=0.7))
    assert cleaned.dedup["listed"] == [
        {"dropped": "t-2", "kept": "t-1", "kind": "exact"},
        {"dropped": "t-4", "kept": "t-3", "kind": "near"},
    ]
    assert cleaned.dedup["exact"] == {"enabled": True, "dropped": 1}
    assert (cleaned.dedup["near"]["dropped"], cleaned.dedup["near"]["threshold"]) == (1, 0.7)
    assert cleaned.contamination["rows_dropped"] == 1


def test_a_dropped_contaminated_row_takes_no_clean_row_with_it():
    reasoning = (Step(0, "s", STORY), Step(1, "s", "then he rested until the evening bell called all his helpers home"))
    prompts = ("What is 1 + 1?", "What is 1 + 1? Explain.")
    given = [StoredTrace(prompt, "t", Trace("1.0", prompt, "2", reasoning)) for prompt in prompts]
    settings = Cleaning(near_dedup=0.7)
    assert list(clean(lambda: given, ContaminationCheck([]), settings).dropped) == [1]
    cleaned = clean(lambda: given, ContaminationCheck([EVAL]), settings)
    assert list(cleaned.dropped) == [0]
    assert cleaned.dedup["near"]["dropped"] == 0
