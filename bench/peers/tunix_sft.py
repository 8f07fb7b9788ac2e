"""Supervised steps of Tunix's PeftTrainer on the work of `bench/compare.py`; the last line is one JSON object.

`python bench/peers/tunix_sft.py WORK`. Every batch has one shape, as wide as the longest example: another shape would
be compiled anew.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optax
from ticks import Ticks
from tunix.sft import peft_trainer
from tunix.sft.hooks import TrainingHooks
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask
from tunix_model import load, mesh, versions

WIDTH_STEP = 16


class Clock(Ticks, TrainingHooks):
    """When each step began, the one before being done, and the losses as the trainer reports them."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = []

    def on_train_start(self, *_: Any) -> None: ...

    def on_train_step_start(self, *_: Any) -> None:
        self.tick()

    def on_train_step_end(self, *told: Any) -> None:
        self.losses.append(float(told[-1]))

    def on_train_end(self, *_: Any) -> None:
        self.tick()

    def on_eval_step_start(self, *_: Any) -> None: ...

    def on_eval_step_end(self, *_: Any) -> None: ...


def main() -> None:
    print(json.dumps(run(Path(sys.argv[1]))))


def run(work: Path) -> dict[str, Any]:
    told = json.loads((work / "sft.json").read_text())
    clock, devices = Clock(), mesh()
    schedule = optax.linear_schedule(told["learning_rate"], 0.0, told["num_steps"])
    optimizer = optax.chain(optax.clip_by_global_norm(told["max_grad_norm"]), optax.adamw(schedule, weight_decay=0.0))
    with devices:
        trainer = peft_trainer.PeftTrainer(
            load(work / "model", devices),
            optimizer,
            # One computation at a time: then a step begins when the one before is done.
            peft_trainer.TrainingConfig(
                eval_every_n_steps=told["num_steps"] + 1, max_steps=told["num_steps"], max_inflight_computations=1
            ),
        ).with_gen_model_input_fn(to_model_input)
        trainer.with_training_hooks(clock)
        trainer.train(batches(told))
    width = padded_width(told)
    settings = {"padded_to": width, "micro_batch_size": told["batch_size"]}
    return {**clock.told(), "losses": clock.losses, "versions": versions(), "settings": settings}


def to_model_input(batch: peft_trainer.TrainingInput) -> dict[str, Any]:
    is_token_BT = batch.input_tokens != PAD
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": build_positions_from_mask(is_token_BT),
        "attention_mask": make_causal_attn_mask(is_token_BT),
    }


# Padding stands behind an example and never in it.
PAD = 0


def batches(told: dict[str, Any]) -> Iterator[peft_trainer.TrainingInput]:
    """Examples in their order, `batch_size` a step."""
    size, shape = told["batch_size"], (told["batch_size"], padded_width(told))
    for first in range(0, told["num_steps"] * size, size):
        tokens_BT, mask_BT = np.full(shape, PAD, np.int32), np.zeros(shape, bool)
        for row, example in enumerate(told["examples"][first : first + size]):
            tokens_BT[row, : len(example["tokens"])] = example["tokens"]
            mask_BT[row, : len(example["mask"])] = example["mask"]
        yield peft_trainer.TrainingInput(input_tokens=tokens_BT, input_mask=mask_BT)


def padded_width(told: dict[str, Any]) -> int:
    longest = max(len(example["tokens"]) for example in told["examples"])
    return -(-longest // WIDTH_STEP) * WIDTH_STEP


if __name__ == "__main__":
    main()
