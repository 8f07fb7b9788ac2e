"""Why a run ended, in plain words. Want of memory is named as such, with the settings to lower."""

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.errors import TracetuneError

MAX_REASON_CHARS = 2_000
LOG_TAIL_BYTES = 8_192
# What allocators, XLA and the kernel's libraries say before they give up.
_MEMORY_WORDS = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|MemoryError|std::bad_alloc|Cannot allocate memory|failed to allocate", re.I
)
# Per kind, the dials that decide how much memory a step takes, the strongest first.
_DIALS: Mapping[str, tuple[str, ...]] = {
    "sft": ("training.batch_size", "model.max_length"),
    "grpo": ("training.micro_batch_size", "grpo.num_generations", "generation.max_generation_steps"),
    "evaluation": ("batch_size", "max_tokens"),
}
_BESIDE: Mapping[str, str] = {
    "sft": "; training.gradient_checkpointing=true and model.lora.r=16 take less memory too",
    "grpo": "; model.lora_rank=16 takes less memory too",
    "evaluation": "",
}


class Death(NamedTuple):
    """How a process ended without a word of its own. `exit_code` is negative for a signal, None when nobody saw it.

    `oom_kills` are the kernel's counts before and after, None where it keeps none; `log` is the end of what was said.
    """

    exit_code: int | None
    oom_kills: tuple[int | None, int | None] = (None, None)
    peak_rss_bytes: int | None = None
    log: str = ""


def reason_of_error(error: BaseException, spec: Mapping[str, Any], *, home: Path, peak_rss_bytes: int) -> str:
    """An exception that ended a run."""
    text = str(error)
    if isinstance(error, MemoryError) or _MEMORY_WORDS.search(text):
        return out_of_memory(spec, text or "Python had none left", peak_rss_bytes)
    # Errors of ours are sentences; the kind of any other is half of what it says.
    told = text if isinstance(error, TracetuneError) else f"{type(error).__name__}: {text}"
    return told.replace(f"{home}/", "")[:MAX_REASON_CHARS]


def reason_of_death(death: Death, spec: Mapping[str, Any]) -> tuple[str, bool]:
    """What ended a process, and whether it was want of memory: then another try would end the same."""
    before, after = death.oom_kills
    killed_hard = death.exit_code in (None, -signal.SIGKILL)
    if killed_hard and before is not None and after is not None and after > before:
        return out_of_memory(spec, "the kernel killed the process for it", death.peak_rss_bytes), True
    said = _MEMORY_WORDS.search(death.log)
    if said and death.exit_code not in (None, -signal.SIGKILL):
        return out_of_memory(spec, _line_with(death.log, said.start()), death.peak_rss_bytes), True
    return f"{_how(death.exit_code)}{_last_line(death.log)}", False


def out_of_memory(spec: Mapping[str, Any], told: str, peak_rss_bytes: int | None) -> str:
    """Names the settings to lower, with their values."""
    dials = [
        f"{dial} (is {value})" for dial in _DIALS[spec["kind"]] if (value := _value(spec["config"], dial)) is not None
    ]
    peak = "" if peak_rss_bytes is None else f"; the process had {peak_rss_bytes / 2**30:.2f} GiB at most"
    told = " ".join(told.split())[:300]
    return f"out of memory: {told}{peak}; lower {' or '.join(dials)}{_BESIDE[spec['kind']]}"[:MAX_REASON_CHARS]


def log_tail(path: Path) -> str:
    """The end of what a process said, empty where it said nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "its process is gone, and nobody saw how it ended"
    if exit_code >= 0:
        return f"its process ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"its process was ended by {name}"


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"; its last words: {lines[-1][:300]}" if lines else ""


def _line_with(log: str, at: int) -> str:
    return log[log.rfind("\n", 0, at) + 1 :].partition("\n")[0]


def _value(config: Mapping[str, Any], dial: str) -> Any:
    value: Any = config
    for part in dial.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
