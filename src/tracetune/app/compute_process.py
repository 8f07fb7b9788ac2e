"""The child of `app.compute`: questions in, answers out, one JSON line each; `python -m tracetune.app.compute_process`.

A line `{"begun": true}` comes before every answer, so that a parent knows a question was taken. What a library prints
goes to stderr: stdout belongs to the answers.
"""

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from tracetune.app.compile_cache import use_compile_cache
from tracetune.core.errors import InputError, TracetuneError
from tracetune.core.home import home_folder
from tracetune.core.values import Message, storable

if TYPE_CHECKING:
    from tracetune.models.model import Model

KEPT_MODELS = 2


def serve(questions: int, answers: IO[str], idle_seconds: float) -> None:
    """Answer until the pipe `questions` closes, or nobody asks for `idle_seconds`."""
    lines = os.fdopen(questions, "rb", buffering=0)
    pending = b""
    while True:
        while b"\n" not in pending:
            ready, _, _ = select.select([lines], [], [], idle_seconds)
            data = lines.read(65_536) if ready else b""
            if not data:
                return
            pending += data
        line, _, pending = pending.partition(b"\n")
        _tell(answers, {"begun": True})
        _tell(answers, _reply(json.loads(line)))


def _tell(answers: IO[str], value: Mapping[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _reply(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": OPERATIONS[question["op"]](question)}
    except TracetuneError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _chat(question: Mapping[str, Any]) -> dict[str, Any]:
    from tracetune.data.render import render_prompt
    from tracetune.engine.sampler import Sampling, generate

    model = _model(question["model"])
    messages = _as_trained(question["model"], [Message(item["role"], item["content"]) for item in question["messages"]])
    sampling = Sampling(max_tokens=question["max_tokens"], temperature=question["temperature"], seed=question["seed"])
    started = time.monotonic()
    [said] = generate(model, [render_prompt(messages, model.tokenizer)], sampling, batch_size=1)
    if said.error is not None:
        raise InputError(f"messages: {said.error}; shorten the conversation")
    seconds = round(time.monotonic() - started, 3)
    text = storable(said.text)
    return {"text": text, "stop_reason": said.stop_reason, "num_tokens": len(said.tokens), "seconds": seconds}


@lru_cache(maxsize=KEPT_MODELS)
def _model(name: str) -> "Model":
    from tracetune.models.load import load_model

    use_compile_cache()
    return load_model(name)


def _as_trained(model: str, messages: list[Message]) -> tuple[Message, ...]:
    """With the system text and the prompt template of the model's own run, unless the conversation has a system."""
    from tracetune.app.evaluate import prompting_of

    prompting = prompting_of(model, home_folder() / "chat", say=lambda _: None)
    if any(message.role == "system" for message in messages):
        return tuple(messages)
    if len(messages) == 1:
        return prompting.messages(messages[0].content)
    system = prompting.system_instruction
    return (*([Message("system", system)] if system else []), *messages)


def _tokens(question: Mapping[str, Any]) -> dict[str, Any]:
    from itertools import islice

    from tracetune.app.datasets import open_dataset
    from tracetune.data.render import render, trace_messages
    from tracetune.data.show import token_spans

    row = next(islice(open_dataset(question["dataset"]).iter_traces(), question["row"], None), None)
    if row is None:
        raise InputError(f"row: dataset {question['dataset']} has no row {question['row']}, counted from 0")
    tokenizer = _tokenizer(question["tokenizer"])
    spans = token_spans(render(trace_messages(row.trace), tokenizer, trace_id=row.id), tokenizer)
    return {"trace_id": row.id, "spans": [span._asdict() for span in spans]}


def _tokenizer(name: str) -> Any:
    from tracetune.config.aliases import built_in
    from tracetune.models.tiny import tiny_tokenizer

    if built_in(name):
        return tiny_tokenizer()
    from tracetune.models.hub import locate
    from tracetune.models.tokenizer import Tokenizer

    return Tokenizer.from_folder(locate(name))


OPERATIONS = {"chat": _chat, "tokens": _tokens}


def main() -> None:
    """Keep stdout for the answers, whatever a library prints."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(0, answers, float(sys.argv[1]))


if __name__ == "__main__":
    main()
