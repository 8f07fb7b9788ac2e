"""A YAML file or mapping, plus `key=value` words, becomes one typed `DistillConfig`, or one error with every mistake.

A key that the chosen method would not obey is refused like one that does not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tracetune.config import resolve
from tracetune.config.check import Settings, Table
from tracetune.config.distill_dials import DISTILL_DIALS, UNUSED
from tracetune.config.distill_schema import DistillationSettings, DistillConfig, StudentSettings, TeacherSettings

_TABLE = Table(DISTILL_DIALS, hint="see docs/distillation.md and training/README.md for every key")


def load_distill_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = (), *, where: str = "config"
) -> DistillConfig:
    """Read, check and type a configuration; `where` names a mapping in messages.

    Raises NotFound for a missing file, InputError listing every mistake.

    >>> load_distill_config({"method": "logit", "teacher": {"model": "tiny-2x"}, "steps": 5}).teacher.top_k
    32
    """
    values = resolve.settle(_TABLE, source, overrides, where=where, contradictions=_contradictions)
    teacher = resolve.section(values, "teacher")
    if values.get("method") == "on_policy":
        # One token is scored unless more are asked for; then the loss is exact at each position.
        teacher = {"top_k": 1, **teacher}
    config = DistillConfig(
        **resolve.sections(values),
        **{name: values[name] for name in ("method",) if name in values},
        teacher=TeacherSettings(**teacher),
        student=StudentSettings(**resolve.section(values, "student")),
        distillation=DistillationSettings(**resolve.section(values, "distillation")),
    )
    if config.method == "on_policy" and "distillation.loss" not in values:
        config = replace(config, distillation=replace(config.distillation, loss="reverse_kl"))
    return config


def distill_mapping(config: DistillConfig) -> dict[str, Any]:
    """The configuration as plain JSON values that `load_distill_config` reads back to an equal object."""
    mapping = resolve.config_mapping(config)
    for unused in UNUSED[config.method]:
        section, _, name = unused.partition(".")
        if name:
            mapping[section].pop(name, None)
        else:
            mapping.pop(section)
    if not config.teacher.is_here:
        mapping["teacher"].pop("batch_size", None)
    if "distillation" in mapping and config.distillation.loss != "jsd":
        mapping["distillation"].pop("beta")
    return mapping


def to_yaml(config: DistillConfig) -> str:
    """The resolved `config.yaml`: every dial that the method obeys, readable by `load_distill_config`."""
    return OmegaConf.to_yaml(OmegaConf.create(distill_mapping(config)))


def _contradictions(settings: Settings) -> list[str]:
    method = settings["method"].value if "method" in settings else DistillConfig().method
    found = [
        f"{setting.place}: has no effect with method: {method}; remove it"
        for target, setting in settings.items()
        for unused in UNUSED[method]
        if (target.startswith(unused) if unused.endswith(".") else target == unused) and setting.value is not None
    ]
    found += _of_loss(settings, method)
    found += _of_teacher(settings, method)
    return [*found, *resolve.contradictions(settings)]


def _of_loss(settings: Settings, method: str) -> list[str]:
    default = "reverse_kl" if method == "on_policy" else DistillationSettings().loss
    loss = settings["distillation.loss"].value if "distillation.loss" in settings else default
    found = []
    if "distillation.beta" in settings and loss != "jsd":
        found.append(f"{settings['distillation.beta'].place}: has no effect with loss: {loss}; remove it")
    elif "distillation.beta" in settings and settings["distillation.beta"].value == 1:
        found.append(f"{settings['distillation.beta'].place}: must be below 1, got 1; for the limit use reverse_kl")
    one_token = method == "on_policy" and ("teacher.top_k" not in settings or settings["teacher.top_k"].value == 1)
    for target, only in (("distillation.loss", "reverse_kl"), ("distillation.temperature", 1.0)):
        if one_token and target in settings and settings[target].value != only:
            found.append(
                f"{settings[target].place}: must be {only} where the teacher scores the sampled token alone; "
                "set teacher.top_k to 2 or more"
            )
    return found


def _of_teacher(settings: Settings, method: str) -> list[str]:
    has_url = "teacher.url" in settings and settings["teacher.url"].value is not None
    on_tinker = "teacher.backend" in settings and settings["teacher.backend"].value == "tinker"
    readers = {"teacher.tokenizer": has_url or on_tinker, "teacher.key_variable": has_url}
    found = [
        f"{settings[target].place}: has no effect without teacher.url; remove it"
        for target, is_read in readers.items()
        if target in settings and settings[target].value is not None and not is_read
    ]
    is_answering = method == "sequence"
    unread = {
        "teacher.batch_size": is_answering and (has_url or on_tinker),
        "teacher.tokenizer": is_answering and has_url,
    }
    place = "teacher.url" if has_url else "teacher.backend: tinker"
    found += [
        f"{settings[target].place}: has no effect with method: {method} and {place}; remove it"
        for target, is_unread in unread.items()
        if target in settings and settings[target].value is not None and is_unread
    ]
    if has_url and on_tinker:
        found.append(f"{settings['teacher.backend'].place}: contradicts {settings['teacher.url'].place}; keep one")
    return found
