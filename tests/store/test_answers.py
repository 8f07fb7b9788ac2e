"""Answers kept for requests that come twice, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from tracetune.store.answers import KEPT_HOURS, LEASE_SECONDS, KeptAnswer, claim_answer, keep_answer, release_answer
from tracetune.store.tables import answers

KEY, BODY = "k" * 64, "b" * 64
ANSWER = KeptAnswer(201, "application/json", b'{"n":1}')


def age(store, **values):
    with store.write() as connection:
        connection.execute(update(answers).values(values))


def test_an_answer_is_kept_for_the_same_request_and_refused_for_another(store):
    claim = claim_answer(store, KEY, BODY)
    assert claim.kind == "ours"
    assert claim_answer(store, KEY, BODY).kind == "busy"
    keep_answer(store, KEY, claim.lease, ANSWER)
    again = claim_answer(store, KEY, BODY)
    assert (again.kind, again.answer) == ("kept", ANSWER)
    assert claim_answer(store, KEY, "c" * 64).kind == "other"
    assert claim_answer(store, "l" * 64, BODY).kind == "ours"


def test_a_released_request_is_done_again(store):
    claim = claim_answer(store, KEY, BODY)
    release_answer(store, KEY, claim.lease)
    assert claim_answer(store, KEY, "c" * 64).kind == "ours"


@pytest.mark.parametrize("moved", [-LEASE_SECONDS, 10 * 365 * 86_400.0])
def test_the_lease_of_a_dead_process_runs_out_and_a_clock_that_jumped_holds_none(store, moved):
    first = claim_answer(store, KEY, BODY)
    age(store, lease_until=first.lease + moved)
    second = claim_answer(store, KEY, BODY)
    assert second.kind == "ours"
    # Whoever lost the lease changes nothing any more.
    keep_answer(store, KEY, first.lease + moved, ANSWER)
    release_answer(store, KEY, first.lease + moved)
    assert claim_answer(store, KEY, BODY).kind == "busy"
    keep_answer(store, KEY, second.lease, ANSWER)
    assert claim_answer(store, KEY, BODY).kind == "kept"


def test_an_answer_is_forgotten_after_a_day(store):
    keep_answer(store, KEY, claim_answer(store, KEY, BODY).lease, ANSWER)
    before = datetime.now(UTC) - timedelta(hours=KEPT_HOURS, seconds=1)
    age(store, created_at=before.isoformat(timespec="microseconds"))
    assert claim_answer(store, KEY, "c" * 64).kind == "ours"
