"""What a call costs beyond its computing, and what waiting together saves: the SDK against a Tinker of one's own.

    python bench/local_tinker.py [--model tiny] [--calls 50]

`overhead` is a call's time through the SDK less that of the same work by the engine in this process, measured in turn,
the median of the differences; the last line is JSON.
"""

import argparse
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import tracetune
from tracetune.app.tinker.samples import Ask, answer_together
from tracetune.engine.learner import Adam, AdapterShape, Datum, Learner
from tracetune.engine.requests import Sampling
from tracetune.models.load import load_model

TOKENS = list(range(5, 37))
CONCURRENT, LENGTH = 64, 32


def timed_ms(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def engine_calls(name: str) -> dict[str, Callable[[], Any]]:
    """The work of each verb in this process."""
    model = load_model(name)
    learner = Learner(model, AdapterShape(rank=8))
    tokens, targets = np.asarray(TOKENS[:-1], np.int32), np.asarray(TOKENS[1:], np.int64)
    data = [Datum(tokens, targets, {"weights": np.ones(len(targets), np.float32)})] * 4
    ask = Ask(model=model, prompt=tuple(TOKENS), sampling=Sampling(max_tokens=1, temperature=1.0))
    return {
        "forward_backward": lambda: learner.forward_backward(data, "cross_entropy", {}),
        "optim_step": lambda: learner.optim_step(Adam(learning_rate=0.0)),
        "sample": lambda: list(answer_together([ask])),
    }


class Sdk:
    """The same through HTTP and the SDK."""

    def __init__(self, name: str) -> None:
        import tinker
        from tinker import types

        self._types, service = types, tinker.ServiceClient()
        self._trainer = service.create_lora_training_client(name, rank=8).result()
        self._sampler = service.create_sampling_client(base_model=name).result()

    def calls(self) -> dict[str, Callable[[], Any]]:
        """A call of each verb, waited for."""
        inputs = {"target_tokens": self._types.TensorData.from_numpy(np.asarray(TOKENS[1:]))}
        datum = self._types.Datum(model_input=self._types.ModelInput.from_ints(TOKENS[:-1]), loss_fn_inputs=inputs)
        still = self._types.AdamParams(learning_rate=0.0)
        return {
            "forward_backward": lambda: self._trainer.forward_backward([datum] * 4, "cross_entropy").result(),
            "optim_step": lambda: self._trainer.optim_step(still).result(),
            "sample": lambda: self.sample(1, 0).result(),
        }

    def sample(self, length: int, seed: int) -> Any:
        """A future of one completion."""
        prompt = self._types.ModelInput.from_ints(TOKENS)
        return self._sampler.sample(prompt, 1, self._types.SamplingParams(max_tokens=length, seed=seed, stop=[]))

    def together(self) -> None:
        """Many samplers at once."""
        for future in [self.sample(LENGTH, seed) for seed in range(CONCURRENT)]:
            future.result()


def in_turn(first: Callable[[], Any], second: Callable[[], Any], times: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the one, then of the other, over and over: what slows the machine slows both. Three warm up."""
    pairs = [(timed_ms(first), timed_ms(second)) for _ in range(times + 3)][3:]
    return [one for one, _ in pairs], [two for _, two in pairs]


def main() -> None:
    """Measure, print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--calls", type=int, default=50)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tinker").setLevel(logging.CRITICAL)
    told: dict[str, Any] = {"model": args.model, "cores": os.cpu_count()}
    engine = engine_calls(args.model)
    with tracetune.local_tinker(args.model):
        sdk = Sdk(args.model)
        for verb, call in sdk.calls().items():
            floors, wholes = in_turn(engine[verb], call, args.calls)
            floor, whole = statistics.median(floors), statistics.median(wholes)
            way = statistics.median(b - a for a, b in zip(floors, wholes, strict=True))
            told |= {f"{verb}_ms": whole, f"{verb}_engine_ms": floor, f"{verb}_overhead_ms": way}
            print(f"{verb:18} {whole:7.1f} ms a call, {floor:7.1f} by the engine: {way:5.1f} for the way")
        alone, together = map(
            statistics.median, in_turn(lambda: sdk.sample(LENGTH, 0).result(), sdk.together, max(3, args.calls // 10))
        )
    speedup = CONCURRENT * alone / together
    told |= {"one_sample_ms": alone, "together_ms": together, "speedup": speedup}
    print(f"{CONCURRENT} samples of {LENGTH} tokens at once: {together:.0f} ms, {speedup:.1f} times one at a time")
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in told.items()}))


if __name__ == "__main__":
    main()
