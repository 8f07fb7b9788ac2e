import random
import time

import numpy as np
import pytest

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, Trace
from tracetune.data.dedup import Duplicate, ExactDuplicates, near_candidates, near_duplicates

STORY = (
    "On a bright morning Natalia walked to the market with 48 clips in her bag and sold every one of them to her "
    "friends before noon, then she went home and made half as many again for the next day"
)


def trace(prompt: str, answer: str = "72", step: str = "48 + 24 = 72") -> Trace:
    return Trace("1.0", prompt, answer, (Step(0, "s", step),), {"id": random.random()})


def duplicates(traces: list[Trace], **options) -> list[Duplicate]:
    exact = ExactDuplicates()
    for position, row in enumerate(traces):
        exact.add(position, row)
    candidates = near_candidates(exact)
    return exact.found + near_duplicates(candidates, (traces[i] for i in candidates), **options)


def test_the_first_of_equal_rows_is_kept_whatever_its_meta_and_case():
    rows = [trace("What is 3 + 4?"), trace("Other 1"), trace("what IS  3 + 4?"), trace("What is 3 + 4?")]
    assert duplicates(rows) == [Duplicate(2, 0, "exact"), Duplicate(3, 0, "exact")]


@pytest.mark.parametrize("other", [trace("p", answer="8"), trace("p", step="another way"), trace("q")])
def test_another_answer_another_reasoning_or_another_prompt_is_no_duplicate(other):
    assert duplicates([trace("p"), other]) == []


def test_where_the_prompt_ends_is_content():
    one, other = trace("What is 3?", step="b c"), trace("What is 3? b", step="c")
    assert duplicates([one, other], threshold=1.0)[0].kind == "near"


def test_a_few_other_words_are_a_near_duplicate_of_the_first():
    rows = [trace(STORY), trace("Unrelated 48 + 24 = 72"), trace(STORY.replace("bright", "sunny")), trace(STORY + ".")]
    assert duplicates(rows) == [Duplicate(2, 0, "near"), Duplicate(3, 0, "near")]


@pytest.mark.parametrize(
    ("old", "new"), [("48 clips", "49 clips"), ("half", "twice"), ("every", "TS every"), ("noon", "noon - 1")]
)
def test_other_numbers_operators_or_codes_are_never_near(old, new):
    assert duplicates([trace(STORY), trace(STORY.replace(old, new))], threshold=0.01) == []


def test_templated_problems_are_not_duplicates():
    rows = [trace(f"What is {a} + {b}?", str(a + b), f"{a} + {b} = {a + b}") for a in range(20) for b in range(20)]
    assert duplicates(rows) == []


def test_rows_below_the_threshold_stay():
    half = STORY[: len(STORY) // 2]
    assert duplicates([trace(STORY), trace(half + " but the story ends quite differently for everybody in it")]) == []


def test_the_estimate_follows_the_jaccard_similarity():
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    rows = [trace(" ".join(words[:300]), "a", "b"), trace(" ".join(words[20:300]), "a", "b")]
    # 5-token shingles: 298 of the first, 278 of the second, 276 in common: Jaccard 0.92.
    assert duplicates(rows, threshold=0.75)
    assert not duplicates(rows, threshold=1.0)


def test_a_row_is_dropped_only_for_one_that_stays():
    words = STORY.split()
    chain = [trace(" ".join([f"x{'y' * step}", *words[step:]])) for step in range(12)]
    found = duplicates(chain, threshold=0.7)
    assert found
    assert not {pair.dropped for pair in found} & {pair.kept for pair in found}


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(InputError, match="near_dedup"):
        near_duplicates([], [], threshold=threshold)
    assert near_duplicates([], [], threshold=1.0) == []


@pytest.mark.slow
def test_time_grows_with_the_rows_not_with_their_square():
    # All rows share their numbers and most of their words: the worst case for the buckets.
    chosen = random.Random(0)
    words = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(60)]

    def seconds(count: int) -> float:
        rows = [trace(" ".join(chosen.choices(words, k=3) + words)) for _ in range(count)]
        start = time.process_time()
        near_duplicates(np.arange(count), rows)
        return time.process_time() - start

    seconds(200)
    assert seconds(4_000) < 4 * 2.5 * seconds(1_000)
