"""The leaderboard over HTTP: the models of one eval set, best first, and which gaps are real."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel

from tracetune.api.evaluations import Interval, MeasuredOut, shown_metric
from tracetune.api.policy import rule
from tracetune.api.strict import Router
from tracetune.app.leaderboard import Standing, leaderboard

router = Router(tags=["evaluations"])


class GapOut(BaseModel):
    """A model against the first; `is_real` follows p_adjusted, which allows for every model of the board."""

    num_items: int
    delta: float
    interval: Interval
    p_adjusted: float
    is_real: bool


class StandingOut(BaseModel):
    """One model by its newest evaluation; `gap` is null for the first."""

    rank: int
    model: str
    evaluation_id: UUID
    accuracy: MeasuredOut | None
    complete: bool
    gap: GapOut | None
    created_at: str


class LeaderboardOut(BaseModel):
    """Best first: complete evaluations before partial ones, then by accuracy."""

    eval_set: str
    eval_set_hash: str
    num_problems: int
    data: list[StandingOut]


@router.get("/api/leaderboard", response_model=LeaderboardOut, **rule("read", 404))
def board(eval_set: Annotated[str, Query(min_length=1, max_length=128)], request: Request) -> Any:
    """The models of one eval set, best first, and which of them are really behind the first."""
    found = leaderboard(eval_set, request.app.state.settings.home)
    whole = {name: value for name, value in found._asdict().items() if name != "standings"}
    return {**whole, "data": [_shown_standing(standing) for standing in found.standings]}


def _shown_standing(standing: Standing) -> dict[str, Any]:
    stored, accuracy = standing.evaluation, standing.accuracy
    return {
        "rank": standing.rank,
        "model": stored.model,
        "evaluation_id": stored.evaluation_id,
        "accuracy": accuracy and shown_metric("accuracy", accuracy._asdict()),
        "complete": standing.complete,
        "gap": standing.gap and standing.gap._asdict(),
        "created_at": stored.created_at,
    }
