"""What a call costs beyond its computing, and what waiting together saves: the SDK against a Tinker of one's own.

    python bench/local_tinker.py [--model tiny] [--calls 50]

`overhead` is a call's time through the SDK less that of the same work by the engine in this process; the last line is
JSON.
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


def median_ms(call: Callable[[], Any], times: int) -> float:
    """Of `times` calls, after three to warm up."""
    taken = []
    for place in range(times + 3):
        began = time.perf_counter()
        call()
        if place >= 3:
            taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def engine_times(name: str, calls: int) -> dict[str, float]:
    """The same work in this process, in milliseconds."""
    model = load_model(name)
    learner = Learner(model, AdapterShape(rank=8))
    tokens, targets = np.asarray(TOKENS[:-1], np.int32), np.asarray(TOKENS[1:], np.int64)
    data = [Datum(tokens, targets, {"weights": np.ones(len(targets), np.float32)})] * 4
    ask = Ask(model=model, prompt=tuple(TOKENS), sampling=Sampling(max_tokens=1, temperature=1.0))
    return {
        "forward_backward": median_ms(lambda: learner.forward_backward(data, "cross_entropy", {}), calls),
        "optim_step": median_ms(lambda: learner.optim_step(Adam(learning_rate=0.0)), calls),
        "sample": median_ms(lambda: list(answer_together([ask])), calls),
    }


def sdk_times(name: str, calls: int) -> dict[str, float]:
    """Through HTTP and the SDK, and many samplers against one at a time."""
    import tinker
    from tinker import types

    service = tinker.ServiceClient()
    trainer = service.create_lora_training_client(name, rank=8).result()
    sampler = service.create_sampling_client(base_model=name).result()
    inputs = {"target_tokens": types.TensorData.from_numpy(np.asarray(TOKENS[1:]))}
    datum = types.Datum(model_input=types.ModelInput.from_ints(TOKENS[:-1]), loss_fn_inputs=inputs)
    still, prompt = types.AdamParams(learning_rate=0.0), types.ModelInput.from_ints(TOKENS)

    def sample(length: int, seed: int) -> Any:
        return sampler.sample(prompt, 1, types.SamplingParams(max_tokens=length, seed=seed, stop=[]))

    def together() -> None:
        for future in [sample(LENGTH, seed) for seed in range(CONCURRENT)]:
            future.result()

    return {
        "forward_backward": median_ms(lambda: trainer.forward_backward([datum] * 4, "cross_entropy").result(), calls),
        "optim_step": median_ms(lambda: trainer.optim_step(still).result(), calls),
        "sample": median_ms(lambda: sample(1, 0).result(), calls),
        "one_sample": median_ms(lambda: sample(LENGTH, 0).result(), calls),
        "together": median_ms(together, max(3, calls // 10)),
    }


def main() -> None:
    """Measure, print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--calls", type=int, default=50)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tinker").setLevel(logging.CRITICAL)
    engine = engine_times(args.model, args.calls)
    with tracetune.local_tinker(args.model):
        sdk = sdk_times(args.model, args.calls)
    told = {"model": args.model, "cores": os.cpu_count()}
    for verb, floor in engine.items():
        told |= {f"{verb}_ms": sdk[verb], f"{verb}_engine_ms": floor, f"{verb}_overhead_ms": sdk[verb] - floor}
        print(f"{verb:18} {sdk[verb]:7.1f} ms a call, {floor:7.1f} by the engine: {sdk[verb] - floor:5.1f} for the way")
    speedup = CONCURRENT * sdk["one_sample"] / sdk["together"]
    told |= {"one_sample_ms": sdk["one_sample"], "together_ms": sdk["together"], "speedup": speedup}
    print(
        f"{CONCURRENT} samplers of {LENGTH} tokens at once: {sdk['together']:.0f} ms, {speedup:.1f} times one at a time"
    )
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in told.items()}))


if __name__ == "__main__":
    main()
