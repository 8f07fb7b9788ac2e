"""Evaluations on record: checked against their set, read row by row, compared by id; no path leaves the house."""

import json

import pytest
from tests.make_evaluations import answers, recorded, registered

from tracetune.app.evaluations import (
    changes_between,
    compare_evaluations,
    comparison_numbers,
    evaluation_rows,
    get_evaluation,
    list_evaluations,
    record_evaluation,
)
from tracetune.core.errors import Corrupt, InputError, NotFound


def test_an_evaluation_is_recorded_with_its_numbers(database):
    stored = recorded(database.home, True, True, False, None)
    assert get_evaluation(stored.evaluation_id) == stored
    assert (stored.model, stored.eval_set, stored.summary["num_items"]) == ("tiny", "numbers-4", 4)
    accuracy = stored.summary["metrics"]["accuracy"]
    assert (accuracy["value"], accuracy["num_items"]) == (2 / 3, 3)
    assert stored.summary["metrics"]["error_rate"]["value"] == 0.25
    assert not stored.file.startswith("/")


def test_recording_again_is_the_same_evaluation(database):
    assert recorded(database.home, True, False, run_id="r") == recorded(database.home, True, False, run_id="r")
    assert len(list_evaluations().items) == 1


def test_answers_to_other_problems_are_refused(home):
    registered(home, "numbers", 3)
    file = answers(home / "answers.jsonl", True, True)
    other = file.read_text().replace("What is 1?", "What is one?")
    stored = record_evaluation(home, run_id=None, model="tiny", eval_set="numbers", file=file)
    assert (stored.summary["num_items"], stored.summary["num_problems"]) == (2, 3)
    file.write_text(other)
    with pytest.raises(InputError, match="'i1' has another prompt"):
        record_evaluation(home, run_id=None, model="tiny", eval_set="numbers", file=file)
    with pytest.raises(InputError, match="'i3' is not in it"):
        record_evaluation(
            home, run_id=None, model="tiny", eval_set="numbers", file=answers(home / "more.jsonl", *[True] * 4)
        )
    with pytest.raises(NotFound, match="Eval set other not found"):
        record_evaluation(home, run_id=None, model="tiny", eval_set="other", file=file)


def test_a_record_outlives_the_run_that_made_it(home, tmp_path):
    registered(home, "numbers", 2)
    file = answers(tmp_path / "answers.jsonl", True, False)
    stored = record_evaluation(home, run_id="r", model="tiny", eval_set="numbers", file=file)
    again = answers(file, False, False)
    other = record_evaluation(home, run_id="r", model="tiny", eval_set="numbers", file=again)
    file.unlink()
    assert [row.item.score.correct for row in evaluation_rows(stored.evaluation_id).items] == [True, False]
    assert [row.item.score.correct for row in evaluation_rows(other.evaluation_id).items] == [False, False]


def test_rows_are_paged_and_chosen_by_verdict(database):
    stored = recorded(database.home, True, False, None, True, False)
    first = evaluation_rows(stored.evaluation_id, limit=3)
    rest = evaluation_rows(stored.evaluation_id, limit=3, cursor=first.next_cursor)
    assert [row.item.eval_id for row in (*first.items, *rest.items)] == ["i0", "i1", "i2", "i3", "i4"]
    assert rest.next_cursor is None
    assert (first.items[0].stop_reason, first.items[0].num_tokens) == ("stop", 5)
    chosen = {
        verdict: [row.item.eval_id for row in evaluation_rows(stored.evaluation_id, verdict=verdict).items]
        for verdict in ("correct", "wrong", "unscored")
    }
    assert chosen == {"correct": ["i0", "i3"], "wrong": ["i1", "i4"], "unscored": ["i2"]}
    wrong = evaluation_rows(stored.evaluation_id, verdict="wrong", limit=1)
    again = evaluation_rows(stored.evaluation_id, verdict="wrong", limit=1, cursor=wrong.next_cursor)
    assert [again.items[0].item.eval_id, again.next_cursor] == ["i4", None]


def test_two_evaluations_are_compared_by_their_references(database):
    before = recorded(database.home, *[False] * 8, True)
    after = recorded(database.home, *[True] * 9, model="run:1")
    comparison = compare_evaluations(before.evaluation_id, after.evaluation_id)
    assert (comparison.before_model, comparison.after_model) == ("tiny", "run:1")
    assert (comparison.verdict, len(comparison.fixed)) == ("improved", 8)
    assert "/srv/secret" not in json.dumps(comparison_numbers(comparison))
    assert changes_between(before.evaluation_id, after.evaluation_id)[0].verdict == "better"


def test_evaluations_of_different_problems_are_not_compared(database):
    one, other = recorded(database.home, True), recorded(database.home, True, False, True)
    assert compare_evaluations(other.evaluation_id, other.evaluation_id).both_correct == 2
    stranger = recorded(database.home, None)
    with pytest.raises(InputError, match="no item has a score in both"):
        compare_evaluations(one.evaluation_id, stranger.evaluation_id)


def test_a_file_that_was_changed_is_never_believed(home):
    stored = recorded(home, True, False)
    file = home / stored.file
    sound = file.read_bytes()
    assert len(evaluation_rows(stored.evaluation_id).items) == 2
    file.write_bytes(sound.replace(b'"correct": false', b'"correct": true'))
    with pytest.raises(Corrupt, match="differs from its recorded sha256"):
        evaluation_rows(stored.evaluation_id)
    file.unlink()
    with pytest.raises(Corrupt, match="is missing"):
        evaluation_rows(stored.evaluation_id)
    file.write_bytes(sound)
    assert len(evaluation_rows(stored.evaluation_id).items) == 2


def test_the_list_is_paged_newest_first_and_filtered(database):
    made = [recorded(database.home, True, False, model=f"run:{n}", run_id=f"r{n}") for n in range(5)]
    first = list_evaluations(limit=3)
    rest = list_evaluations(limit=3, cursor=first.next_cursor)
    assert [stored.model for stored in (*first.items, *rest.items)] == [f"run:{n}" for n in (4, 3, 2, 1, 0)]
    assert rest.next_cursor is None
    assert list_evaluations(model="run:2").items == [made[2]]
    assert list_evaluations(run_id="r3", eval_set="numbers-2").items == [made[3]]
    assert list_evaluations(eval_set="numbers-9").items == []
