"""A trace as a client sends it: the limits of the contract, every mistake by its place in the JSON."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from tracetune.api.strict import Body
from tracetune.core.strict_json import MAX_INTEGER
from tracetune.core.trace import (
    MAX_STEP_CHARS,
    MAX_STEP_TYPE_CHARS,
    MAX_STEPS,
    MAX_TEXT_CHARS,
    MAX_VERSION_CHARS,
    Step,
    Trace,
)


class StepBody(Body):
    """One step of reasoning."""

    i: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    type: Annotated[str, Field(min_length=1, max_length=MAX_STEP_TYPE_CHARS)]
    content: Annotated[str, Field(min_length=1, max_length=MAX_STEP_CHARS)]


def _unique(steps: list[StepBody]) -> list[StepBody]:
    if len({step.i for step in steps}) != len(steps):
        raise PydanticCustomError("unique_steps", "The numbers i of steps must be unique")
    return steps


class TraceBody(Body):
    """A trace; fields of your own go under meta."""

    trace_version: Annotated[str, Field(min_length=1, max_length=MAX_VERSION_CHARS)]
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    final_answer: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    steps: Annotated[list[StepBody], Field(min_length=1, max_length=MAX_STEPS), AfterValidator(_unique)]
    meta: dict[str, Any] | None = None

    def trace(self) -> Trace:
        """The value that the rest of the program knows."""
        steps = tuple(Step(step.i, step.type, step.content) for step in self.steps)
        return Trace(self.trace_version, self.prompt, self.final_answer, steps, self.meta)


class StepView(BaseModel):
    """One step as it is stored."""

    i: int
    type: str
    content: str


class TracePayload(BaseModel):
    """The content of a stored trace."""

    trace_version: str
    prompt: str
    final_answer: str
    steps: list[StepView]
    meta: dict[str, Any] | None
