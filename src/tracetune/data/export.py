"""Export rows: a frozen trace as one line of JSON in the three formats that users' tools read.

Keys stand in the contract's order and system fields win over meta of the same name. Lines are UTF-8 JSON
without spaces, so equal datasets export to equal bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal
from uuid import UUID, uuid5

from tracetune.core.errors import InputError
from tracetune.core.trace import StoredTrace, Trace

ExportFormat = Literal["trace", "tunix_sft", "training_example"]
# Training examples are named by content inside this fixed namespace, so their ids never change.
EXAMPLE_NAMESPACE = UUID("6f1d3c52-8a3e-5d0b-9c55-2d6a7e4b1f90")
REASONING_REQUEST = "\n\nPlease show your reasoning steps."


def export_lines(
    rows: Iterable[StoredTrace], export_format: str, *, system_instruction: str | None = None
) -> Iterator[bytes]:
    """One JSON line with its newline per row, as a stream.

    `system_instruction` stands before the prompt, and only `tunix_sft` has a place for it. Raises
    InputError for an unknown format, or for an instruction the format cannot carry.
    """
    build = _builder(export_format, system_instruction)
    return (_line(build(row)) for row in rows)


def trace_row(row: StoredTrace) -> dict[str, Any]:
    """`trace`: the steps as a list of texts."""
    return {
        "id": row.id,
        "prompts": row.trace.prompt,
        "trace_steps": [step.content for step in row.trace.steps],
        "final_answer": row.trace.final_answer,
        "metadata": _with_meta(row, {"created_at": row.created_at, "trace_version": row.trace.trace_version}),
    }


def tunix_sft_row(row: StoredTrace, system_instruction: str | None = None) -> dict[str, Any]:
    """`tunix_sft`: the whole conversation as one text in Gemma's turn markers."""
    question = row.trace.prompt if not system_instruction else f"{system_instruction}\n\n{row.trace.prompt}"
    metadata = _with_meta(
        row, {"created_at": row.created_at, "trace_version": row.trace.trace_version}, {"format": "tunix_sft"}
    )
    return {
        "id": row.id,
        "prompts": f"<start_of_turn>user\n{question}<end_of_turn>\n"
        f"<start_of_turn>model\n{response_text(row.trace)}<end_of_turn>",
        "final_answer": row.trace.final_answer,
        "metadata": metadata,
    }


def training_example_row(row: StoredTrace) -> dict[str, Any]:
    """`training_example`: prompt and response; the id stands for the content, not for this export."""
    metadata = {
        "source_trace_id": row.id,
        "created_at": row.created_at,
        "trace_version": row.trace.trace_version,
    }
    return {
        "id": str(uuid5(EXAMPLE_NAMESPACE, row.trace.content_hash())),
        "prompt": row.trace.prompt + REASONING_REQUEST,
        "response": response_text(row.trace),
        "metadata": _with_meta(row, metadata),
    }


def response_text(trace: Trace) -> str:
    """The answer as the model is to write it: numbered steps in list order, then the final answer.

    >>> response_text(Trace("1.0", "2+3?", "5", ()))
    'Answer: 5'
    """
    steps = "".join(f"{number}. {step.content}\n" for number, step in enumerate(trace.steps, start=1))
    return f"Reasoning:\n{steps}Answer: {trace.final_answer}" if steps else f"Answer: {trace.final_answer}"


def _builder(export_format: str, system_instruction: str | None) -> Callable[[StoredTrace], dict[str, Any]]:
    builders = {"trace": trace_row, "tunix_sft": tunix_sft_row, "training_example": training_example_row}
    if export_format not in builders:
        raise InputError(f"export.format: must be one of {', '.join(builders)}, got {export_format!r}")
    if not system_instruction:
        return builders[export_format]
    if export_format != "tunix_sft":
        raise InputError(
            f"export.system_instruction: only tunix_sft rows carry one, got format {export_format!r}; "
            "leave it out, or export as tunix_sft"
        )
    return lambda row: tunix_sft_row(row, system_instruction)


def _with_meta(row: StoredTrace, first: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    last = last or {}
    meta = {key: value for key, value in (row.trace.meta or {}).items() if key not in first and key not in last}
    return {**first, **meta, **last}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
