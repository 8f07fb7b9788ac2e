"""Chat over HTTP: the same conversation to one model or to several, with the same seed, answered side by side."""

from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field

from tracetune.api.errors import RETRY_SECONDS, ApiError
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.app.compute import shared_compute
from tracetune.app.registry import resolve_model
from tracetune.core.errors import Unavailable

router = Router(tags=["chat"])
Reference = Annotated[str, Field(min_length=1, max_length=200)]


class MessageBody(Body):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=50_000)]


class ChatBody(Body):
    """Models by reference (`tiny`, an alias, `run:<run id>`, `model:<model id>`) and a conversation that ends with the
    user. Temperature 0 takes the likeliest token each time."""

    models: Annotated[list[Reference], Field(min_length=1, max_length=4)]
    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=100)]
    max_tokens: Annotated[int, Field(ge=1, le=2048)] = 256
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class AnswerOut(BaseModel):
    """What one model said; `text` is null when it could not, and `error` says why. `num_tokens` has the stop token."""

    model: str
    text: str | None
    stop_reason: str | None
    num_tokens: int | None
    seconds: float | None
    error: str | None


class ChatOut(BaseModel):
    """The answers, in the order of the models asked."""

    answers: list[AnswerOut]


@router.post("/api/chat", response_model=ChatOut, **rule("train", 404, 409))
def chat(body: ChatBody, request: Request) -> Any:
    """Ask now and wait for the answers. A model that is too large, or too slow, does not keep the others from
    answering."""
    home = request.app.state.settings.home
    compute = shared_compute(home)
    if compute.is_busy:
        raise ApiError(503, "chat: too many wait for an answer", headers={"Retry-After": str(RETRY_SECONDS)})
    for model in body.models:
        resolve_model(model, home)
    return {"answers": [_answer(body, model, home) for model in body.models]}


def _answer(body: ChatBody, model: str, home: Any) -> dict[str, Any]:
    said = {"text": None, "stop_reason": None, "num_tokens": None, "seconds": None, "error": None}
    messages = [message.model_dump() for message in body.messages]
    try:
        found = shared_compute(home).chat(
            model, messages, max_tokens=body.max_tokens, temperature=body.temperature, seed=body.seed
        )
    except Unavailable as error:
        return {**said, "model": model, "error": str(error)}
    return {**said, **found, "model": model}
