"""Predicted against measured memory: what `tracetune plan` says of a step, and what the process then takes.

`python bench/plan.py [--only NAME …]` runs each configuration in a process of its own: programs are compiled first,
then memory is given back, and from there the highest resident memory is read while weights are made and a step is
taken, or completions are sampled. A table, and as the last line one JSON object; exit 1 when any is off by over 10 %.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

TOLERANCE = 0.10
SHAPE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "vocab_size": 24_000}
LONG = {"rows": (1, 4096), "layers": 5}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full": {"rows": (2, 512)},
    "larger batch": {"rows": (16, 512)},
    "long rows": LONG,
    "long rows, remat": LONG | {"remat": True},
    "long rows, dots": LONG | {"remat": "dots"},
    "long rows, LoRA": LONG | {"lora": 16},
    "rollout": {"slots": (64, 8), "layers": 4, "tokens": 512},
}


def main() -> None:
    """Measure every configuration in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--inside", choices=CONFIGURATIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(inside(CONFIGURATIONS[arguments.inside])))
        return
    found = {name: run(name) for name in arguments.only}
    print(f"{'configuration':<20}{'predicted MiB':>14}{'measured MiB':>14}{'measured / predicted':>22}")
    for name, (predicted, measured) in found.items():
        print(f"{name:<20}{predicted / 2**20:>14,.0f}{measured / 2**20:>14,.0f}{measured / predicted:>22.3f}")
    worst = max(abs(measured / predicted - 1) for predicted, measured in found.values())
    pairs = {name: {"predicted": predicted, "measured": measured} for name, (predicted, measured) in found.items()}
    print(json.dumps({"worst_error": round(worst, 4), "tolerance": TOLERANCE, "configurations": pairs}))
    sys.exit(worst > TOLERANCE)


def run(name: str) -> tuple[int, int]:
    """Predicted and measured bytes."""
    command = [sys.executable, str(Path(__file__)), "--inside", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {measured / predicted:.3f}", file=sys.stderr)
    return predicted, measured


def inside(settings: dict[str, Any]) -> tuple[int, int]:
    """One configuration in this process."""
    return rollout(settings) if "slots" in settings else update(settings)


def arch_of(settings: dict[str, Any]) -> Any:
    """A Qwen3-shaped decoder of 36 million weights with two layers."""
    from tracetune.models.arch import arch_from_hf

    shape = SHAPE | ({"num_hidden_layers": settings["layers"]} if "layers" in settings else {})
    heads = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64}
    return arch_from_hf({"model_type": "qwen3", **shape, **heads, "tie_word_embeddings": True})


def update(settings: dict[str, Any]) -> tuple[int, int]:
    """One step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tracetune.config.schema import LoraSettings, OptimizerSettings
    from tracetune.engine.optimizer import make_optimizer
    from tracetune.engine.plan import Update, abstract_stack, abstract_weights, step_of, update_program
    from tracetune.engine.step import init_state
    from tracetune.models.lora import init_lora
    from tracetune.models.transformer import init_params

    arch, (rows, length) = arch_of(settings), settings["rows"]
    planned = Update(
        arch=arch,
        optimizer=OptimizerSettings(),
        lora=LoraSettings(r=settings["lora"]) if "lora" in settings else None,
        remat=settings.get("remat", False),
        shape=(1, rows, length),
        dtype=None,
    )
    predicted = update_program(planned).peak
    optimizer = make_optimizer(planned.optimizer, 1)
    step = step_of(planned, arch, optimizer)
    step.compile(*abstract_weights(arch, optimizer, planned.lora, None), abstract_stack(planned.shape))
    key = jax.random.key(0)
    make = jax.jit(partial(init_params, arch=arch)).lower(key).compile()
    ones = jax.tree.map(lambda shape: np.ones(shape.shape, shape.dtype), abstract_stack(planned.shape))
    stack = ones._replace(positions_ABT=np.broadcast_to(np.arange(length, dtype=np.int32), planned.shape))
    before = begin()
    params = make(key)
    trained = params if planned.lora is None else init_lora(key, arch, planned.lora)
    state = init_state(trained, optimizer)
    frozen = None if planned.lora is None else params
    del params, trained
    state, metrics = step(state, frozen, stack)
    assert jnp.isfinite(metrics.loss)
    return predicted, resident("VmHWM") - before


def rollout(settings: dict[str, Any]) -> tuple[int, int]:
    """Completions of random weights, none of which stops early; sampled twice, so that all is compiled."""
    import jax

    from tracetune.engine.plan import abstract_params, num_bytes, peak
    from tracetune.engine.plan_rollout import Rollout, rollout_phases
    from tracetune.engine.sampler import Sampling, generate_groups
    from tracetune.models.choice import Settings
    from tracetune.models.model import Model
    from tracetune.models.tiny import tiny_tokenizer
    from tracetune.models.transformer import init_params

    (slots, siblings), arch = settings["slots"], replace(arch_of(settings), vocab_size=tiny_tokenizer().vocab_size)
    planned = Rollout(
        arch=arch,
        lora=None,
        dtype=None,
        num_slots=slots,
        num_generations=siblings,
        all_at_once=True,
        longest_prompt=200,
        max_tokens=settings["tokens"],
        settings=Settings(sample=True, top_k=50, filter_p=False),
    )
    predicted = peak(rollout_phases(planned, beside=num_bytes(abstract_params(arch))))
    sampling = Sampling(max_tokens=settings["tokens"], temperature=1.0, top_k=50, stop_ids=frozenset({-1}))
    prompts = [[1] * 200 for _ in range(slots // siblings)]
    make = jax.jit(partial(init_params, arch=arch)).lower(jax.random.key(0)).compile()

    def sample() -> None:
        model = Model("random", arch, make(jax.random.key(0)), tiny_tokenizer(), "")
        generate_groups(model, prompts, sampling, num_generations=siblings, batch_size=slots)

    sample()
    before = begin()
    sample()
    return predicted, resident("VmHWM") - before


def begin() -> int:
    """Load what a first program loads, give memory back, forget the highest mark, and say what is resident."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((1024, 1024))
    jax.block_until_ready((square @ square, jnp.argsort(square[0])))
    del square
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
