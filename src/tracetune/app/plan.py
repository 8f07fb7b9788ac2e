"""A plan: what a run would need in memory, time and dollars, told from its settings and the model's config alone.

Nothing is allocated and no weights are read; a model that is not here is known by its config.json, or by its index.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from tracetune.app.memory import Change, Config, first_change, phases, told_bytes, with_shape
from tracetune.app.tinker_prices import AS_OF, Tokens, bill
from tracetune.app.workload import Work, work_of
from tracetune.config.aliases import BUILT_IN, resolve_alias
from tracetune.config.compose import TRAIN, compose_grpo, options
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.resolve import load_sft_config, sft_keys
from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError
from tracetune.engine.devices import GIB, KNOWN, Room, room, speed
from tracetune.engine.plan import Phase, peak

ASSUMED_UTILISATION = 0.4
_UNITS = {"": 1, "b": 1, "k": 10**3, "kib": 2**10, "m": 10**6, "mib": 2**20, "g": 10**9, "gib": 2**30}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "t": 10**12, "tib": 2**40}


class Plan(NamedTuple):
    """What a run would take. `room` None means that nobody knows how much there is; `change` is the first that would
    make it fit, None when it fits or nothing would. `seconds` are of one step."""

    model: str
    num_params: int
    phases: tuple[Phase, ...]
    room: Room | None
    change: Change | None
    work: Work
    seconds: float
    how: str
    dollars: float | None
    backend: str

    @property
    def num_bytes(self) -> int:
        """The most that is held at once; 0 where another's machine holds it."""
        return peak(self.phases) if self.phases else 0

    @property
    def fits(self) -> bool | None:
        """None where nobody knows."""
        return None if self.room is None else self.num_bytes <= self.room.num_bytes


def plan(config: Config, *, memory: int | None = None, device: str | None = None, longest: int | None = None) -> Plan:
    """Plan one run. `memory` in bytes, or a `device` of the table, stand for this machine's; `longest` bounds the
    positions of an example, or the tokens of a prompt.

    Raises NotFound or Unavailable for a model whose config is not to be had, InputError for one that is not
    supported or a device that is not known.
    """
    if device is not None and device not in KNOWN:
        raise InputError(f"--device: must be one of {', '.join(KNOWN)}, got {device!r}; or give --memory")
    config, arch = with_shape(config)
    work = work_of(config, arch)
    if config.backend == "tinker":
        dollars = bill(resolve_alias(config.model.name), Tokens(*work.tokens)) if work.tokens else None
        return Plan(config.model.name, arch.num_params, (), None, None, work, 0.0, "", dollars, config.backend)
    limit = _room(memory, device)
    dtype = jnp.bfloat16 if device is not None and config.model.dtype is None else None
    found = tuple(phases(config, arch, longest, dtype))
    fits = limit is None or peak(found) <= limit.num_bytes
    change = None if fits or limit is None else first_change(config, arch, limit)
    fast = speed(device)
    seconds = work.seconds(ASSUMED_UTILISATION * fast.flops, ASSUMED_UTILISATION * fast.bandwidth)
    how = f"computed from {work.flops:.2g} operations at {ASSUMED_UTILISATION:.0%} of {fast.source}"
    return Plan(config.model.name, arch.num_params, found, limit, change, work, seconds, how, None, config.backend)


def _room(memory: int | None, device: str | None) -> Room | None:
    if memory is not None:
        return Room(memory, "as asked")
    if device is not None:
        return Room(int(KNOWN[device].memory_gib * GIB), f"of {device}")
    return room()


def read_config(words: Sequence[str], *, model: str | None = None) -> Config:
    """The run that words mean: a YAML file and overrides, or overrides alone, as `tracetune sft` reads them; words that
    it does not know are those of `tracetune train`.

    Raises InputError listing every mistake.
    """
    files = [word for word in words if word.endswith((".yaml", ".yml")) and "=" not in word]
    rest = [word for word in words if word not in files]
    if len(files) > 1:
        raise InputError(f"plan: one configuration at a time, got {', '.join(files)}; leave out all but one")
    bare = next((word for word in rest if word in ("sft", "train")), None)
    if bare is not None:
        raise InputError(f"plan: takes the words after {bare}, got {bare!r} too; leave it out: the words say what runs")
    if not files and any(_is_grpo_word(word) for word in rest):
        config: Config = compose_grpo(rest)
    else:
        config = load_sft_config(files[0] if files else None, rest)
    return config if model is None else replace(config, model=replace(config.model, name=model))


def _is_grpo_word(word: str) -> bool:
    """Whether only `tracetune train` knows the word."""
    key, _, value = word.partition("=")
    if word.startswith("+"):
        return True
    if key == "model":
        return value in options("model") and value != BUILT_IN
    return key not in sft_keys() and (key in TRAIN.keys.known or key in TRAIN.groups)


def parse_memory(text: str) -> int:
    """Bytes of `24GiB`, `80GB`, `512MiB`. Raises InputError.

    >>> parse_memory("24GiB"), parse_memory("80 GB")
    (25769803776, 80000000000)
    """
    number = text.strip().rstrip("BbGgIiKkMmTt ").strip()
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * _UNITS[unit]
    except (ValueError, KeyError) as error:
        raise InputError(f"--memory: must be a size such as 24GiB or 80GB, got {text!r}") from error
    if not 0 < size < float("inf"):
        raise InputError(f"--memory: must be above 0, got {text!r}")
    return int(size)


def facts(made: Plan) -> dict[str, str]:
    """A plan in words, in the order of reading."""
    told = {"model": f"{made.model}, {made.num_params:,} parameters", "steps": made.work.told}
    if made.backend == "tinker":
        return told | {"memory": "none here: the model lives on Tinker's machines", "cost": _cost(made)}
    told |= {f"  {phase.name}": told_bytes(phase.num_bytes) for phase in made.phases}
    told["memory"] = f"{told_bytes(made.num_bytes)} at most, as XLA lays out each program; the process itself on top"
    if made.room is not None:
        verdict = "fits" if made.fits else "does not fit"
        told["room"] = f"{told_bytes(made.room.num_bytes)} {made.room.source}: {verdict}"
    if made.fits is False:
        told["change"] = _change(made.change)
    total = "" if made.work.num_steps is None else f"about {told_time(made.work.num_steps * made.seconds)}: "
    return told | {"time": f"{total}{made.seconds:.3g} s a step, {made.how}"}


def _change(change: Change | None) -> str:
    if change is None:
        return "none of batch, remat, LoRA, offload, shorter rows and up to 64 devices; take a smaller model"
    return f"{change.words}{'' if change.same else ' (trains something else)'}"


def _cost(made: Plan) -> str:
    tokens = made.work.tokens
    if tokens is None:
        return "not known before the number of steps is; give training.num_steps"
    counts = Tokens(*tokens)
    handed = f"at most {counts.prefill:,} tokens to read, {counts.sample:,} to sample, {counts.train:,} to train on"
    if made.dollars is None:
        return f"{handed}; the price of {resolve_alias(made.model)} is not known"
    return f"${made.dollars:,.2f} at prices of {AS_OF}: {handed}"


def told_time(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def as_json(made: Plan) -> str:
    """A plan as one JSON object; bytes, seconds, dollars."""
    content: dict[str, Any] = {
        "model": made.model,
        "backend": made.backend,
        "num_params": made.num_params,
        "num_bytes": made.num_bytes,
        "phases": {phase.name: phase.num_bytes for phase in made.phases},
        "room_bytes": made.room and made.room.num_bytes,
        "fits": made.fits,
        "change": made.change and made.change.words,
        "num_steps": made.work.num_steps,
        "seconds_per_step": made.seconds,
        "flops_per_step": made.work.flops,
        "dollars": made.dollars,
    }
    return json.dumps(content)


__all__ = ["GrpoConfig", "Plan", "SftConfig", "as_json", "facts", "parse_memory", "plan", "read_config"]
