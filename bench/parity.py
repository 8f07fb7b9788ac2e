"""The parity matrix: every family in float32 and bfloat16 against transformers, PEFT, and itself in other clothes.

`python bench/parity.py [CASE ...] [--write]` computes the small checkpoints of tests/models/fixtures, prints a table
and, as its last line, one JSON object; it exits 1 when a cell is out of tolerance. `--write` puts the table into
docs/parity.md. Shapes: B sequences, T tokens, V vocab.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from tracetune.engine.sampler import Sampling, generate
from tracetune.models.adapter import load_adapter
from tracetune.models.head import token_logprobs
from tracetune.models.hf import load_full
from tracetune.models.model import Model
from tracetune.models.transformer import forward, head_weights

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "models" / "fixtures"
PAGE = ROOT / "docs" / "parity.md"
BEGIN, END = "<!-- table: python bench/parity.py --write -->", "<!-- end of table -->"

# A case is a small checkpoint that transformers wrote; what stands beside it is what it has and its siblings lack.
CASES = {
    "qwen2": "Qwen 2.5 to 3B: biases, tied head",
    "qwen2_untied": "Qwen 2.5 from 7B: own head; window on, odd head size",
    "qwen3_tied": "Qwen 3 to 4B: query and key norms, tied head, odd head size",
    "qwen3_untied": "Qwen 3 from 8B: own head, heads wider than the model",
    "llama3_plain": "Llama 3: base 500,000, own head; biases, odd head size",
    "llama3": "Llama 3.1: positions scaled by 8",
    "llama32": "Llama 3.2: positions scaled by 32, tied head, wide heads",
    "gemma2": "Gemma 2: windows, both soft-caps, own query scale",
    "gemma3_1b": "Gemma 3 270M, 1B: windows 5 to 1, two position bases",
    "gemma3": "Gemma 3 4B to 27B: global positions scaled by 8, own query scale",
}
DTYPES = ("float32", "bfloat16")
# float32: about a thousand roundings of 6e-8, of logits as high as 16; a wrong switch moves them by 1e-3 at least.
FLOAT32_LIMIT = 1e-4
# bfloat16: when ours is no further from the exact logits than transformers' are, the two are at most twice as far from
# each other; independent roundings come to √2 of it.
BFLOAT16_LIMIT = 2.0
STRIDE = 4  # of the vocabulary, in the logits with an adapter


class Cell(NamedTuple):
    """One comparison. `value` is, in float32, the largest difference in logits or nats; in bfloat16, the root mean
    square of differences over that of transformers' bfloat16 logits from the exact ones; of greedy tokens, how many
    differ."""

    case: str
    dtype: str
    name: str
    value: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.value <= self.limit

    def text(self) -> str:
        if self.name == "greedy":
            return "equal" if self.ok else f"**{self.value:.0f} differ**"
        number = f"{self.value:.0e}" if self.dtype == "float32" else f"{self.value:.2f} r"
        return number if self.ok else f"**{number}**"


class Subject(NamedTuple):
    """A case in one type: float32 weights, rounded to bfloat16 for that type, as transformers rounds them.

    `rounding` is the root mean square of what bfloat16 costs transformers, in logits.
    """

    case: str
    dtype: str
    model: Model
    adapted: Model
    oracle: dict[str, np.ndarray]
    rounding: float

    def cell(self, name: str, ours: np.ndarray, theirs: np.ndarray, *, rounding: float | None = None) -> Cell:
        """How far two arrays of logits or log-probs are from each other; `rounding` None is that of the model."""
        difference = ours.astype(np.float64) - theirs.astype(np.float64)
        if self.dtype == "float32":
            return Cell(self.case, self.dtype, name, float(np.abs(difference).max()), FLOAT32_LIMIT)
        return Cell(self.case, self.dtype, name, _rms(difference) / (rounding or self.rounding), BFLOAT16_LIMIT)


class Computed(NamedTuple):
    """What one forward pass gives: all logits, and the log-prob of each next token as training computes it."""

    logits_BTV: np.ndarray
    logprobs_BT: np.ndarray


def subject(case: str, dtype: str) -> Subject:
    """Load a case with its adapter and what transformers and PEFT computed."""
    model, adapted = _load(case)
    with np.load(FIXTURES / case / "oracle.npz") as first, np.load(FIXTURES / "parity" / case / "oracle.npz") as second:
        oracle = dict(first) | dict(second)
    if dtype == "float32":
        return Subject(case, dtype, model, adapted, oracle, 0.0)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), model.params)
    model, adapted = model._replace(params=params), adapted._replace(params=params)
    exact_TV = compute(model, oracle["tokens_BT"], dtype="float32").logits_BTV[0]
    return Subject(case, dtype, model, adapted, oracle, _rms(_half(oracle["half_TV"]) - exact_TV))


@cache
def _load(case: str) -> tuple[Model, Model]:
    tokenizer = FIXTURES / "tokenizers" / ("gemma" if case.startswith("gemma") else "qwen")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (*tokenizer.iterdir(), FIXTURES / case / "config.json", FIXTURES / case / "model.safetensors"):
            shutil.copy(file, folder)
        model = load_full(folder, name=case)
    return model, load_adapter(FIXTURES / "parity" / case, model, name=f"{case} adapted")


def compute(model: Model, tokens_BT: np.ndarray, *, dtype: str, lengths: Sequence[int] | None = None) -> Computed:
    """One pass as training makes it. `lengths` of packed segments; None means that each row is one."""
    tokens_BT = np.asarray(tokens_BT, np.int32)
    segments_T, positions_T = _packed(lengths or [tokens_BT.shape[1]], tokens_BT.shape[1])
    rows = tuple(np.broadcast_to(row_T, tokens_BT.shape) for row_T in (segments_T, positions_T))
    how = {"arch": model.arch, "lora_scale": model.lora_scale, "dtype": jnp.dtype(dtype)}
    return Computed(*map(np.asarray, _compute(model.params, model.lora, tokens_BT, *rows, **how)))


@partial(jax.jit, static_argnames=("arch", "lora_scale", "dtype"))
def _compute(
    params: Any,
    lora: Any,
    tokens_BT: Any,
    segments_BT: Any,
    positions_BT: Any,
    *,
    arch: Any,
    lora_scale: Any,
    dtype: Any,
) -> tuple[jax.Array, jax.Array]:
    where = {"segments_BT": segments_BT, "positions_BT": positions_BT}
    hidden_BTD = forward(params, arch, tokens_BT, **where, lora=lora, lora_scale=lora_scale, dtype=dtype)
    head_VD, cap = head_weights(params, arch), arch.logit_softcap
    logits_BTV = jnp.einsum(
        "btd,vd->btv",
        *(hidden_BTD, head_VD.astype(dtype)),
        precision="highest",
        preferred_element_type=jnp.float32,
    )
    targets_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
    logprobs_BT = token_logprobs(hidden_BTD, head_VD, targets_BT, softcap=cap)
    return cap * jnp.tanh(logits_BTV / cap) if cap else logits_BTV, logprobs_BT


def _packed(lengths: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments 1, 2, … of these lengths, then padding; positions that begin anew in each."""
    padding = [size - sum(lengths)] if size > sum(lengths) else []
    numbers = [*range(1, len(lengths) + 1), *(0 for _ in padding)]
    all_lengths = [*lengths, *padding]
    segments = np.repeat(numbers, all_lengths).astype(np.int32)
    return segments, np.concatenate([np.arange(length, dtype=np.int32) for length in all_lengths])


def logits_cell(of: Subject) -> Cell:
    """Against transformers."""
    ours_BTV = compute(of.model, of.oracle["tokens_BT"], dtype=of.dtype).logits_BTV
    if of.dtype == "float32":
        return of.cell("logits", ours_BTV, of.oracle["logits_BTV"])
    return of.cell("logits", ours_BTV[0], _half(of.oracle["half_TV"]))


def greedy_cell(of: Subject) -> Cell:
    """The sampler's likeliest tokens against those of transformers."""
    if of.dtype == "float32":
        prompt_T, expected = of.oracle["tokens_BT"][0], of.oracle["greedy"]
    else:
        prompt_T, expected = of.oracle["prompt_T"], of.oracle["greedy_half"]
    said = _sample(of, of.model, prompt_T, len(expected), temperature=0.0).tokens
    return Cell(of.case, of.dtype, "greedy", float(np.sum(np.asarray(said) != expected)), 0.0)


def lora_cell(of: Subject) -> Cell:
    """Logits with an adapter against PEFT's."""
    tokens_BT = of.oracle["tokens_BT"][:1]
    ours_TV = compute(of.adapted, tokens_BT, dtype=of.dtype).logits_BTV[0, :, ::STRIDE]
    if of.dtype == "float32":
        return of.cell("LoRA", ours_TV, of.oracle["lora_TV"])
    theirs_TV = _half(of.oracle["lora_half_TV"])
    exact_TV = compute(of.adapted, tokens_BT, dtype="float32").logits_BTV[0, :, ::STRIDE]
    return of.cell("LoRA", ours_TV, theirs_TV, rounding=_rms(theirs_TV - exact_TV))


def packed_cell(of: Subject) -> Cell:
    """Log-probs of two sequences in one row, with padding, against each alone."""
    tokens_BT = of.oracle["tokens_BT"]
    first, second = tokens_BT.shape[1], tokens_BT.shape[1] - 5
    row_T = np.concatenate([tokens_BT[0], tokens_BT[1, :second], [0] * 8])
    packed_T = compute(of.model, row_T[None], dtype=of.dtype, lengths=[first, second]).logprobs_BT[0]
    alone_BT = compute(of.model, tokens_BT, dtype=of.dtype).logprobs_BT
    # The last of a segment has its successor's first token as target.
    ours = np.concatenate([packed_T[: first - 1], packed_T[first : first + second - 1]])
    return of.cell("packed = unpacked", ours, np.concatenate([alone_BT[0, : first - 1], alone_BT[1, : second - 1]]))


def sampler_cell(of: Subject) -> Cell:
    """Log-probs that sampling with an adapter reports, against those that training computes of the same tokens."""
    prompt_T = of.oracle["prompt_T"]
    said = _sample(of, of.adapted, prompt_T, of.oracle["tokens_BT"].shape[1] - len(prompt_T), temperature=1.0)
    text_T = np.concatenate([prompt_T, said.tokens])
    trained_T = compute(of.adapted, text_T[None], dtype=of.dtype).logprobs_BT[0]
    return of.cell("sampler = trainer", np.asarray(said.logprobs), trained_T[len(prompt_T) - 1 : -1])


def _sample(of: Subject, model: Model, prompt_T: np.ndarray, num_tokens: int, *, temperature: float) -> Any:
    sampling = Sampling(max_tokens=num_tokens, temperature=temperature, stop_ids=frozenset())
    return generate(model, [prompt_T.tolist()], sampling, batch_size=2, dtype=jnp.dtype(of.dtype))[0]


def _half(bits: np.ndarray) -> np.ndarray:
    return bits.view(ml_dtypes.bfloat16).astype(np.float32)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


MEASURES: Mapping[str, Callable[[Subject], Cell]] = {
    "logits": logits_cell,
    "greedy": greedy_cell,
    "LoRA": lora_cell,
    "packed = unpacked": packed_cell,
    "sampler = trainer": sampler_cell,
}
CELLS = tuple(MEASURES)


def measure(cases: Sequence[str], names: Sequence[str] = CELLS, dtypes: Sequence[str] = DTYPES) -> Iterator[Cell]:
    """Every cell asked for, as soon as it is known."""
    for case in cases:
        for dtype in dtypes:
            of = subject(case, dtype)
            yield from (MEASURES[name](of) for name in names)


def table(cells: Sequence[Cell]) -> str:
    """A row for each family and type."""
    heads = ("family", "type", *CELLS)
    rows = [heads, tuple("---" for _ in heads)]
    found = {(cell.case, cell.dtype, cell.name): cell for cell in cells}
    for case, dtype in dict.fromkeys((cell.case, cell.dtype) for cell in cells):
        rows.append((CASES[case], dtype, *(found[case, dtype, name].text() for name in CELLS)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, print, write when asked to, and fail when a cell is out of tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--write", action="store_true", help="put the table into docs/parity.md")
    arguments = parser.parse_args()
    if strangers := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"no case {strangers[0]!r}; there are {', '.join(CASES)}")
    if arguments.write and arguments.cases:
        parser.error("--write needs all cases; name none")
    cells = []
    for cell in measure(arguments.cases or list(CASES)):
        print(f"{cell.case:<13} {cell.dtype:<9} {cell.name:<18} {cell.text()}", file=sys.stderr, flush=True)
        cells.append(cell)
    print(table(cells))
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(cells)}\n{END}{rest.partition(END)[2]}")
    failed = [f"{cell.case} {cell.dtype} {cell.name}" for cell in cells if not cell.ok]
    print(json.dumps({"cells": len(cells), "failed": failed, "largest": _largest(cells)}))
    sys.exit(1 if failed else 0)


def _largest(cells: Sequence[Cell]) -> dict[str, float]:
    """The largest value of each type and comparison."""
    return {
        f"{dtype} {name}": max((cell.value for cell in cells if (cell.dtype, cell.name) == (dtype, name)), default=0.0)
        for dtype in DTYPES
        for name in CELLS
    }


if __name__ == "__main__":
    main()
