"""Which settings a run by a Tinker service obeys, and which SDK it is spoken to with.

Importing this module imports no SDK, so a run that cannot be is refused before anything is sent.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from tracetune.backends.obeyed import not_obeyed
from tracetune.config.distill_schema import DistillConfig
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import LoraSettings, SftConfig
from tracetune.core.errors import InputError, Unavailable

# Releases that the tests ran with; the protocol beneath has changed without notice before.
TESTED = SpecifierSet(">=0.38,<0.39")
INSTALL = 'pip install "tracetune[tinker]"'
# Services scale an adapter by this over its rank, and cannot be told another.
ALPHA = 32.0
ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
# The app obeys these, whoever trains a student.
_DISTILLATION = ("method", "teacher.", "student.", "distillation.")


def check_settings(config: SftConfig | GrpoConfig) -> None:
    """Raises one InputError that names every setting which the service cannot obey."""
    mistakes = [*not_obeyed(config, {"grpo.loss", *_DISTILLATION}), *_not_possible(config)]
    if mistakes:
        told = "; ".join(mistakes)
        raise InputError(f"backend: tinker cannot obey these settings: {told}; change them, or set backend: local")


def is_installed() -> bool:
    """Whether the SDK is here. Raises Unavailable for a release outside the tested range."""
    try:
        found = version("tinker")
    except PackageNotFoundError:
        return False
    if not TESTED.contains(found, prereleases=True):
        raise Unavailable(f"backend: tinker needs the SDK tinker {TESTED}, got {found}; run {INSTALL}")
    return True


def installed_versions() -> dict[str, str]:
    """The SDK."""
    return {"tinker": version("tinker")}


def _not_possible(config: SftConfig | GrpoConfig) -> Iterator[str]:
    """Settings that are read, and whose value the service has nothing for."""
    lora = config.model.lora
    if lora is None:
        rank = "model.lora.r" if isinstance(config, SftConfig) else "model.lora_rank"
        in_file = "" if isinstance(config, SftConfig) else " (model.peft_config.r in an RLVR file)"
        yield f"{rank} must be set{in_file}, since the service trains adapters only, got none"
    else:
        yield from _odd_adapter(lora)
    if isinstance(config, GrpoConfig):
        yield from _odd_temperature("generation.temperature", config.generation.temperature)
    if isinstance(config, DistillConfig):
        yield from _odd_temperature("distillation.temperature", config.distillation.temperature)


def _odd_temperature(name: str, value: float) -> Iterator[str]:
    if value != 1.0:
        yield f"{name} must be 1, the only one at which the service's trainer tells log-probs, got {value:g}"


def _odd_adapter(lora: LoraSettings) -> Iterator[str]:
    if lora.alpha != ALPHA:
        yield f"lora alpha must be {ALPHA:g}, which services scale by and cannot be told, got {lora.alpha:g}"
    modules = set(lora.target_modules)
    if not modules or any(modules & group not in (set(), group) for group in (ATTENTION, MLP)):
        yield (
            f"lora target_modules must be all of {', '.join(sorted(ATTENTION))}, all of {', '.join(sorted(MLP))}, or "
            f"both, got {', '.join(sorted(modules)) or 'none'}"
        )
