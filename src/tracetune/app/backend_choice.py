"""Which backend a run asked for: whether it is here, whether it can do what is asked, and what it brings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jax.sharding import Mesh

from tracetune.backends import tinker_settings
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.backends.tinker_words import Say
from tracetune.backends.tunix_models import check_model
from tracetune.backends.tunix_settings import check_model_settings, check_settings, installed_versions, is_installed
from tracetune.config.distill_schema import DistillConfig
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import SftConfig
from tracetune.core.errors import Unavailable
from tracetune.engine import hosts
from tracetune.models.arch import Arch, arch_to_hf
from tracetune.models.load import load_model
from tracetune.models.model import Model, fingerprint
from tracetune.models.served import ServedModel, served_model

INSTALL = {"tunix": 'pip install "tracetune[tunix]"', "tinker": 'pip install "tracetune[tinker]"'}


def require_backend(config: SftConfig | GrpoConfig) -> None:
    """Raises Unavailable with the install command for a backend that is not in this install, InputError naming the
    settings that it cannot obey."""
    name = config.backend
    checks = {"tunix": (is_installed, check_settings), "tinker": (tinker_settings.is_installed, _check_tinker)}
    if name == "local":
        return
    is_here, check = checks[name]
    if not is_here():
        raise Unavailable(f"backend: {name!r} is not installed; run {INSTALL[name]}, or set backend: local")
    check(config)


def _check_tinker(config: SftConfig | GrpoConfig) -> None:
    tinker_settings.check_settings(config)
    if hosts.find_seat() is not None:
        raise Unavailable("backend: tinker is spoken to by one process, not several; start one, on any machine")


@contextmanager
def reached(config: SftConfig | GrpoConfig, say: Say) -> Iterator[TinkerService | None]:
    """A session with the service that trains, None where this machine does. Raises what `connected` raises."""
    if config.backend != "tinker":
        yield None
        return
    samples = isinstance(config, GrpoConfig) or (isinstance(config, DistillConfig) and config.method == "on_policy")
    with connected(config.model.name, sampled=samples, say=say) as service:
        yield service


def load_base(config: SftConfig | GrpoConfig, *, mesh: Mesh | None = None) -> Model | ServedModel:
    """The model to train, onto `mesh` where there is one; without its weights where a service holds them."""
    if config.backend == "tinker":
        return served_model(config.model.name)
    quantize = config.model.lora.quantize if config.model.lora else None
    model = load_model(config.model.name, quantize=quantize, mesh=mesh)
    check_backend_model(config, model)
    return model


def model_facts(model: Model | ServedModel) -> dict[str, Any]:
    """What a manifest says of the base model. Weights that a service holds have no hash."""
    if isinstance(model, ServedModel):
        told = {"base_model_hash": None, "adapter_hash": None, "model_config": model.config}
        return {"base_model": model.name, **told, "tokenizer_hash": model.tokenizer.fingerprint}
    return {
        "base_model": model.name,
        "base_model_hash": model.fingerprint,
        "adapter_hash": None if model.lora is None else fingerprint(model.arch, model.lora, model.tokenizer),
        "model_config": arch_to_hf(model.arch),
    }


def check_backend_model(config: SftConfig | GrpoConfig, model: Model) -> None:
    """Raises InputError with the reason for a model, or an adapter, that the backend would train wrongly."""
    if config.backend == "tunix":
        check_model_settings(model, config.model.lora)


def check_backend_arch(config: SftConfig | GrpoConfig, arch: Arch) -> None:
    """The same of a model whose weights are not read."""
    if config.backend == "tunix":
        check_model(arch)


def backend_facts(config: SftConfig | GrpoConfig) -> dict[str, Any]:
    """What a manifest says of a backend beside its name: the packages it brings, nothing for the local one."""
    versions = {"tunix": installed_versions, "tinker": tinker_settings.installed_versions}
    return {"backend_versions": versions[config.backend]()} if config.backend in versions else {}
