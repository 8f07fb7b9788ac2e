"""The memory of a run before it is begun: its phases, whether they fit, and the first change that would make them.

Two bounds that cost nothing answer most questions; only between them are the programs compiled (engine/plan.py).
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax

from tracetune.app.blueprint import blueprint
from tracetune.backends.local_policy import MAX_SLOTS, choose_shape, losses
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import LoraSettings, MeshSettings, SftConfig
from tracetune.core.errors import InputError
from tracetune.engine.devices import GIB, Room, room
from tracetune.engine.plan import (
    Phase,
    Program,
    Update,
    abstract_frozen,
    abstract_params,
    bounds,
    num_bytes,
    peak,
    scorer_program,
    update_program,
)
from tracetune.engine.plan_rollout import Rollout, rollout_bounds, rollout_phases
from tracetune.models.arch import Arch
from tracetune.models.choice import Settings
from tracetune.models.precision import compute_dtype
from tracetune.models.remat import has_host_memory

SKIP = "TRACETUNE_SKIP_MEMORY_CHECK"
_SHORTEST = 128
_MOST_DEVICES = 64

Config = SftConfig | GrpoConfig


class Change(NamedTuple):
    """Other settings and the words that make them; `same` says that the same thing is trained."""

    words: str
    config: Any
    same: bool


def check_memory(config: Config, *, teacher: str | None = None) -> None:
    """Raises InputError, naming the change that would make it fit, for a run that this device's memory cannot hold; and
    what `blueprint` raises.

    `teacher` is a model that lies in memory beside the run's. Does nothing when TRACETUNE_SKIP_MEMORY_CHECK is set,
    for another backend than ours, or where the device does not say how much it has.
    """
    if config.backend != "local" or os.environ.get(SKIP, "") not in {"", "0"}:
        return
    here = room()
    if here is None:
        return
    config, arch = with_shape(config)
    beside = teacher_bytes(teacher)
    left = here._replace(num_bytes=here.num_bytes - beside)
    needed = needed_bytes(config, arch, left.num_bytes)
    if needed <= left.num_bytes:
        return
    change = first_change(config, arch, left)
    fitting = "no change of settings fits, take a smaller model" if change is None else f"this fits: {change.words}"
    raise InputError(
        f"memory: {config.model.name} needs {told_bytes(needed)} or more"
        f"{f' beside the {told_bytes(beside)} of its teacher {teacher}' if beside else ''}, got "
        f"{told_bytes(here.num_bytes)} {here.source}; {fitting}; {SKIP}=1 begins all the same"
    )


def teacher_bytes(teacher: str | None) -> int:
    """The weights of a teacher of this machine, 0 without one."""
    return 0 if teacher is None else num_bytes(abstract_params(blueprint(teacher).arch))


def with_shape(config: Config) -> tuple[Any, Arch]:
    """The model's shape, and the settings with the adapter that the model comes with."""
    found = blueprint(config.model.name)
    lora = config.model.lora or found.lora
    return replace(config, model=replace(config.model, lora=lora)), found.arch


def told_bytes(count: float) -> str:
    """Bytes in GiB, or in MiB where these say more."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def needed_bytes(config: Config, arch: Arch, limit: int) -> int:
    """Bytes that a run needs; a bound of them where that already tells on which side of `limit` they are."""
    low, high = run_bounds(config, arch)
    if low > limit:
        return low
    return high if high <= limit else peak(phases(config, arch))


def run_bounds(config: Config, arch: Arch) -> tuple[int, int]:
    """Bytes that a run surely needs and surely stays below; nothing is compiled."""
    low, high = bounds(update_of(config, arch))
    if isinstance(config, GrpoConfig):
        sampling = rollout_bounds(_rollout(config, arch))
        held = _held(config, arch)
        low, high = max(low, held + sampling[0]), max(high + held, held + sampling[1])
    devices = math.prod(config.model.mesh.shape)
    return low // devices, high


def phases(config: Config, arch: Arch, longest: int | None = None, dtype: Any = None) -> list[Phase]:
    """Every phase of a run that may be its largest, compiled for this machine's device.

    `longest` bounds the positions of an example, or the tokens of a prompt; None leaves it to the settings. `dtype`
    None is what the run would compute in here. On a mesh, what lies on each device if all is divided evenly.
    """
    update = update_of(config, arch, longest, dtype)
    found = [Phase("update", 0, update_program(update))]
    if isinstance(config, GrpoConfig):
        found = _policy_phases(config, arch, update, longest)
    devices = math.prod(config.model.mesh.shape)
    return [_divided(phase, devices) for phase in found]


def _divided(phase: Phase, devices: int) -> Phase:
    return Phase(phase.name, phase.beside // devices, Program(*(part // devices for part in phase.program)))


def _policy_phases(config: GrpoConfig, arch: Arch, update: Update, longest: int | None) -> list[Phase]:
    """Sampling, the reference and the update, each with what the others leave in memory."""
    reference = num_bytes(abstract_params(arch)) if config.grpo.beta and config.model.lora is None else 0
    program = update_program(update)
    sampling = rollout_phases(_rollout(config, arch, longest, update.dtype), beside=_held(config, arch, update.dtype))
    found = [*sampling, Phase("update", reference, program)]
    if config.grpo.beta:
        scorer = scorer_program(update, temperature=config.generation.temperature)
        lora = config.model.lora
        weights = num_bytes(abstract_frozen(arch, lora, update.dtype) if lora else abstract_params(arch))
        found.append(Phase("log-probs of the reference", _held(config, arch, update.dtype) - weights, scorer))
    return found


def _held(config: GrpoConfig, arch: Arch, dtype: Any = None) -> int:
    """What lies in memory while a policy samples: weights, the optimizer's state, the reference."""
    frozen = num_bytes(abstract_frozen(arch, config.model.lora, dtype))
    trained = 4 * update_of(config, arch, dtype=dtype).num_trained
    copies = 1 if config.optimizer.offload and jax.default_backend() != "cpu" else 3
    reference = trained if config.grpo.beta and config.model.lora is None else 0
    return frozen + copies * trained + reference


def update_of(config: Config, arch: Arch, longest: int | None = None, dtype: Any = None) -> Update:
    """The step that a run would compile here, `longest` and `dtype` as of `phases`."""
    dtype = dtype or compute_dtype(config.model.dtype)
    common = {"arch": arch, "optimizer": config.optimizer, "lora": config.model.lora, "dtype": dtype}
    remat = config.training.gradient_checkpointing
    if isinstance(config, SftConfig):
        training, length = config.training, config.model.max_length
        shape = (training.gradient_accumulation_steps, training.batch_size, length)
        return Update(**common, remat=remat, shape=shape, max_segment=min(longest or length, length))
    shape = choose_shape(config, longest or config.generation.max_prompt_length)
    return Update(
        **common,
        remat=remat,
        shape=(1, shape.num_rows, shape.row_length),
        loss_of=next(iter(losses(config, arch.logit_softcap))),
        grouped=True,
        referred=bool(config.grpo.beta),
    )


def _rollout(config: GrpoConfig, arch: Arch, longest: int | None = None, dtype: Any = None) -> Rollout:
    generation, siblings = config.generation, config.grpo.num_generations
    completions = config.training.micro_batch_size * siblings
    top_k = generation.top_k if generation.top_k is not None and generation.top_k < arch.vocab_size else None
    return Rollout(
        arch=arch,
        lora=config.model.lora,
        dtype=dtype or compute_dtype(config.model.dtype),
        num_slots=min(MAX_SLOTS, completions),
        num_generations=siblings,
        all_at_once=completions <= MAX_SLOTS,
        longest_prompt=longest or generation.max_prompt_length,
        max_tokens=generation.max_generation_steps,
        settings=Settings(sample=True, top_k=top_k, filter_p=generation.top_p < 1.0),
    )


def first_change(config: Config, arch: Arch, limit: Room) -> Change | None:
    """The first of `changes` that fits, None when none does."""
    return next(
        (each for each in changes(config) if needed_bytes(each.config, arch, limit.num_bytes) <= limit.num_bytes), None
    )


def changes(config: Config) -> Iterator[Change]:
    """Settings to try, those first that train the same: smaller passes, remat, offload; then LoRA, a base of four bits,
    shorter rows or fewer prompts, and more devices."""
    yield from _upon_each_other(Change("", config, True))
    lowest = _last(Change("", config, True))
    if config.model.lora is None:
        adapted = _with_lora(config, "model.lora.r=16", "model.lora_rank=16", LoraSettings())
        yield adapted
        yield from _upon_each_other(adapted)
        lowest = _last(adapted)
    if (lora := lowest.config.model.lora).quantize is None:
        four = _with_lora(
            lowest.config, "model.lora.quantize=nf4", "model.lora_quantize=nf4", replace(lora, quantize="nf4")
        )
        lowest = four._replace(words=_joined(lowest.words, four.words))
        yield lowest
    for words, shorter in _shorter(lowest.config):
        yield Change(_joined(lowest.words, words), shorter, False)
    for devices in (2**power for power in range(1, int(math.log2(_MOST_DEVICES)) + 1)):
        mesh = MeshSettings(shape=(devices, 1), axes=("fsdp", "tp"))
        wider = _train(replace(config, model=replace(config.model, mesh=mesh)), gradient_checkpointing=True)
        words = f"model.mesh_shape=[[{devices},1],[fsdp,tp]] training.gradient_checkpointing=true"
        if not isinstance(config, SftConfig) or config.training.batch_size % devices == 0:
            yield Change(words, wider, True)


def _with_lora(config: Config, supervised: str, policy: str, lora: LoraSettings) -> Change:
    words = supervised if isinstance(config, SftConfig) else policy
    return Change(words, replace(config, model=replace(config.model, lora=lora)), False)


def _upon_each_other(start: Change) -> Iterator[Change]:
    """Smaller passes, remat and offload, each upon those before it."""
    batch, config = "", start.config
    others: list[str] = []
    for words, change in _smaller_passes(config):
        batch, config = words, change(config)
        yield Change(_joined(start.words, batch), config, start.same)
    for words, change in _slower(config):
        others, config = [*others, words], change(config)
        yield Change(_joined(start.words, batch, *others), config, start.same)


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))


def _last(start: Change) -> Change:
    *_, last = (start, *_upon_each_other(start))
    return last


def _smaller_passes(config: Config) -> Iterator[tuple[str, Any]]:
    """Half the batch and twice the accumulation: the same step. Of GRPO, fewer prompts a step, which is another."""
    if isinstance(config, GrpoConfig):
        return
    size, times = config.training.batch_size, config.training.gradient_accumulation_steps
    while size % 2 == 0:
        size, times = size // 2, times * 2
        words = f"training.batch_size={size} training.gradient_accumulation_steps={times}"
        yield words, partial(_train, batch_size=size, gradient_accumulation_steps=times)


def _slower(config: Config) -> Iterator[tuple[str, Any]]:
    if config.training.gradient_checkpointing is not True:
        yield "training.gradient_checkpointing=true", partial(_train, gradient_checkpointing=True)
    if not config.optimizer.offload and jax.default_backend() != "cpu" and has_host_memory():
        yield "optimizer.offload=true", lambda old: replace(old, optimizer=replace(old.optimizer, offload=True))


def _train(config: Config, **values: Any) -> Any:
    return replace(config, training=replace(config.training, **values))


def _shorter(config: Config) -> Iterator[tuple[str, Any]]:
    if isinstance(config, SftConfig):
        length = config.model.max_length // 2
        while length >= _SHORTEST:
            yield f"model.max_length={length}", replace(config, model=replace(config.model, max_length=length))
            length //= 2
        return
    prompts = config.training.micro_batch_size // 2
    while prompts >= 1:
        yield f"training.micro_batch_size={prompts}", _train(config, micro_batch_size=prompts)
        prompts //= 2
