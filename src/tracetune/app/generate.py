"""Generate: rows of prompts → completions with log-probabilities and how each ended."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tracetune.app import rows
from tracetune.app.compile_cache import use_compile_cache
from tracetune.core.values import Message
from tracetune.engine.sampler import Sampling
from tracetune.engine.sampler import generate as complete
from tracetune.models.load import load_model
from tracetune.models.tokenizer import Tokenizer

FIELDS = ("prompt", "messages", "token_ids")


def generate(
    model_name: str,
    path: Path,
    *,
    max_tokens: int = 512,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The row with `completion, token_ids, logprobs, stop_reason` per row, in order.

    A `prompt` is one user turn, `messages` a conversation that ends with the user, `token_ids` an exact prompt,
    given back as `prompt_token_ids`. Temperature 0 takes the likeliest token each time. `token_ids` of the
    answer include the stop token; logprobs are nats, untempered. A row that cannot be answered has stop reason
    "error" and its reason in `error`. Raises InputError naming file and line for a row that cannot be read.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    use_compile_cache()
    model = load_model(model_name)
    asked = list(rows.read_objects(path))
    prompts = [_prompt(row, model.tokenizer) for row in asked]
    completions = complete(model, prompts, sampling, batch_size=batch_size, on_progress=on_progress)
    for row, completion in zip(asked, completions, strict=True):
        echoed = {"prompt_token_ids" if name == "token_ids" else name: value for name, value in row.fields.items()}
        answer = {
            "completion": completion.text,
            "token_ids": list(completion.tokens),
            "logprobs": list(completion.logprobs),
            "stop_reason": completion.stop_reason,
        }
        yield echoed | answer | ({"error": completion.error} if completion.error else {})


def _prompt(row: rows.Row, tokenizer: Tokenizer) -> list[int]:
    field = rows.one_of(row, FIELDS)
    if field == "token_ids":
        return rows.token_ids(row)
    asked = (Message("user", rows.text(row, "prompt")),) if field == "prompt" else rows.messages(row)
    return rows.prompt_tokens(row, asked, tokenizer)
