"""Which backend a run asked for: whether it is here, whether it can do what is asked, and what it brings."""

from typing import Any

from tracetune.backends.tunix_models import check_model
from tracetune.backends.tunix_settings import check_model_settings, check_settings, installed_versions, is_installed
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import SftConfig
from tracetune.core.errors import Unavailable
from tracetune.models.arch import Arch
from tracetune.models.model import Model

INSTALL = {"tunix": 'pip install "tracetune[tunix]"', "tinker": 'pip install "tracetune[tinker]"'}


def require_backend(config: SftConfig | GrpoConfig) -> None:
    """Raises Unavailable with the install command for a backend that is not in this install, InputError naming the
    settings that it cannot obey."""
    name = config.backend
    if name == "tinker" or (name == "tunix" and not is_installed()):
        raise Unavailable(f"backend: {name!r} is not installed; run {INSTALL[name]}, or set backend: local")
    if name == "tunix":
        check_settings(config)


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
    return {"backend_versions": installed_versions()} if config.backend == "tunix" else {}
