"""A request that is sent twice is answered once: the verbs behind the header Idempotency-Key."""

from pathlib import Path

from tracetune.store import answers
from tracetune.store.answers import Claim, KeptAnswer
from tracetune.store.open import open_store

__all__ = ["Claim", "KeptAnswer", "claim_answer", "keep_answer", "release_answer"]


def claim_answer(request_key: str, body_hash: str, home: Path | None = None) -> Claim:
    """Ask for the right to answer the request that `request_key` stands for."""
    with open_store(home) as store:
        return answers.claim_answer(store, request_key, body_hash)


def keep_answer(request_key: str, lease: float, answer: KeptAnswer, home: Path | None = None) -> None:
    """Remember what is about to be sent, for a day."""
    with open_store(home) as store:
        answers.keep_answer(store, request_key, lease, answer)


def release_answer(request_key: str, lease: float, home: Path | None = None) -> None:
    """Give the request up: a repetition does the work."""
    with open_store(home) as store:
        answers.release_answer(store, request_key, lease)
