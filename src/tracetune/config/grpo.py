"""A composed mapping becomes one typed `GrpoConfig` or `EvaluateSettings`, or one error with every mistake; and back.

Hydra's own objects end here: nothing behind this door sees a DictConfig.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tracetune.config.aliases import ALIASES, BUILT_IN, near_names, resolve_alias
from tracetune.config.benchmark import BenchmarkSettings, make_benchmark
from tracetune.config.check import Setting, Settings, Table
from tracetune.config.grpo_dials import EVALUATE_DIALS, GRPO_DIALS
from tracetune.config.grpo_schema import (
    CurriculumSettings,
    EvaluateSettings,
    GenerationSettings,
    GrpoConfig,
    GrpoDataSettings,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
    PromptSettings,
    RewardSettings,
    TrackingSettings,
)
from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.core.errors import InputError
from tracetune.core.labels import grade_name

GRPO_KEYS = Table(GRPO_DIALS, hint="--cfg job prints every key")
EVALUATE_KEYS = Table(EVALUATE_DIALS, hint="--cfg job prints every key")
_HUBS = ("huggingface", "tfds", "kaggle")
_TOLD = ("checkpoint_dir", "log_dir", "save_interval_steps", "max_checkpoints_to_keep")
_DEFAULT = GrpoConfig()


def resolve_grpo(config: DictConfig | Mapping[str, Any], *, where: str = "config") -> GrpoConfig:
    """Check and type a whole configuration or a part of one; what is not there has its default.

    Raises InputError listing every mistake.

    >>> resolve_grpo({"grpo": {"beta": 0.04}}).grpo.beta
    0.04
    """
    mistakes: list[str] = []
    return settled(GRPO_KEYS.check(plain(config), where, mistakes), where, mistakes)


def settled(settings: Settings, where: str, mistakes: list[str]) -> GrpoConfig:
    """The configuration of checked settings, whatever table checked them. Raises InputError listing `mistakes` and
    every contradiction."""
    _settle_checkpoint_dir(settings, mistakes)
    _settle_data(settings, mistakes)
    _settle_curriculum(settings, mistakes)
    _settle_model(settings, where, mistakes)
    _settle_lora(settings, mistakes)
    _settle_rewards(settings, mistakes)
    _settle_benchmark(settings, mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    return _build({target: setting.value for target, setting in settings.items()})


def resolve_evaluate(config: DictConfig | Mapping[str, Any], *, where: str = "config") -> EvaluateSettings:
    """The same for `evaluate.py`. Raises InputError listing every mistake."""
    mistakes: list[str] = []
    settings = EVALUATE_KEYS.check(plain(config), where, mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    given = {target: setting.value for target, setting in settings.items()}
    return EvaluateSettings(**{"checkpoint_dir": _DEFAULT.training.checkpoint_dir, **given})


def config_mapping(config: GrpoConfig) -> dict[str, Any]:
    """The configuration in users' keys and plain JSON values; `resolve_grpo` reads it back to an equal object."""
    whole = asdict(config)
    model, tracking = whole.pop("model"), whole.pop("tracking")
    data, lora = _listed(whole.pop("data")), model["lora"]
    curriculum = _listed(data.pop("curriculum"))
    whole["training"] |= {**data, "log_dir": tracking.pop("log_dir")}
    tracking["benchmark"] = _listed(tracking["benchmark"])
    return {
        **whole,
        **tracking,
        "curriculum": curriculum,
        "model": {
            "path": model["name"],
            "lora_rank": lora and lora["r"],
            "lora_alpha": (lora or asdict(LoraSettings()))["alpha"],
            "lora_module_path": lora and list(lora["target_modules"]),
            "lora_quantize": lora and lora["quantize"],
            "dtype": model["dtype"],
            "mesh_shape": [list(model["mesh"]["shape"]), list(model["mesh"]["axes"])],
        },
        "rewards": {
            "functions": [reward.function for reward in config.rewards],
            "weights": [reward.weight for reward in config.rewards],
        },
    }


def _listed(section: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as the lists that YAML and JSON have in their place."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in section.items()}


def deciding_mapping(config: GrpoConfig) -> dict[str, Any]:
    """The part of `config_mapping` that decides what a run becomes; where it is written and told is left out."""
    mapping = config_mapping(config)
    sections = ["resume", *asdict(config.tracking)]
    if config.data.curriculum.by is None:
        sections.append("curriculum")
    training = {name: value for name, value in mapping["training"].items() if name not in _TOLD}
    return {**{name: value for name, value in mapping.items() if name not in sections}, "training": training}


def to_yaml(config: GrpoConfig) -> str:
    """The resolved `config.yaml` of a run: every dial with its value."""
    return OmegaConf.to_yaml(OmegaConf.create(config_mapping(config)))


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of plain values, interpolations resolved and Hydra's own section left out."""
    try:
        made = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        content = OmegaConf.to_container(
            OmegaConf.masked_copy(made, [str(key) for key in made if key != "hydra"]), resolve=True
        )
    except OmegaConfBaseException as error:
        raise InputError(f"config: {' '.join(str(error).split())}; mend that value") from error
    if not isinstance(content, dict):
        raise InputError("config: must be a mapping of keys to values; see run_training.py --cfg job")
    return {str(key): value for key, value in content.items()}


def _settle_checkpoint_dir(settings: Settings, mistakes: list[str]) -> None:
    """Both spellings set the same; one that is at its default gives way."""
    outer, inner = settings.pop("checkpoint_dir", None), settings.get("training.checkpoint_dir")
    if outer is None or (inner is not None and outer.value == _DEFAULT.training.checkpoint_dir):
        return
    if inner is not None and inner.value not in (outer.value, _DEFAULT.training.checkpoint_dir):
        mistakes.append(f"{inner.place}: contradicts {outer.place}, which sets the same; keep one")
    settings["training.checkpoint_dir"] = outer


def _settle_data(settings: Settings, mistakes: list[str]) -> None:
    """Each source has its own keys; one that would be ignored is refused."""
    found = settings.get("data.data_source")
    source = found.value if found else _DEFAULT.data.data_source
    files = ("jsonl", *_HUBS)
    known = {"data_path": files, "grades": files, "topics": files, "eval_path": ("jsonl",)}
    known |= {"task": ("builtin",), "split": _HUBS}
    given = {name: settings.get(f"data.{name}") for name in known}
    for name, of in known.items():
        setting = given[name]
        if setting is not None and setting.value is not None and source not in of:
            mistakes.append(f"{setting.place}: has no effect with training.data_source={source}; remove one")
    path = given["data_path"]
    if source == "jsonl" and found and (path is None or path.value is None):
        mistakes.append(f"{found.place}: jsonl needs training.data_path, the file of problems; add it")
    for name, of, default in (("task", ("builtin",), _DEFAULT.data.task), ("split", _HUBS, "train")):
        setting = given[name]
        if setting is None or setting.value is None:
            settings[f"data.{name}"] = Setting(default if source in of else None, f"training.{name}")


def _settle_curriculum(settings: Settings, mistakes: list[str]) -> None:
    """Without stages no setting of theirs has an effect; topics have no natural order."""
    given = {name: settings.get(f"data.curriculum.{name}") for name in vars(_DEFAULT.data.curriculum)}
    by = given.pop("by")
    changed = [
        setting for name, setting in given.items() if setting and setting.value != vars(_DEFAULT.data.curriculum)[name]
    ]
    if by is None or by.value is None:
        mistakes.extend(
            f"{setting.place}: has no effect without curriculum.by; add it or remove one" for setting in changed
        )
    elif by.value == "topic" and (given["order"] is None or given["order"].value is None):
        mistakes.append(f"{by.place}: topics have no order of their own; add curriculum.order, the easiest first")
    elif by.value == "grade" and given["order"] and given["order"].value:
        names = tuple(grade_name(name) for name in given["order"].value)
        settings["data.curriculum.order"] = given["order"]._replace(value=names)


def _settle_model(settings: Settings, where: str, mistakes: list[str]) -> None:
    """`path` wins over family and size, which the alias table must know."""
    path, family, size = (settings.pop(f"model.{name}", None) for name in ("path", "family", "size"))
    if path is not None and path.value is not None:
        settings["model.name"] = Setting(resolve_alias(path.value), path.place)
    elif family is not None:
        name = family.value if size is None or size.value is None else f"{family.value}_{size.value}"
        settings["model.name"] = Setting(resolve_alias(name), family.place)
        if name.lower() not in ALIASES and name != BUILT_IN:
            near = near_names(name)
            told = f"; did you mean {near[0]}?" if near else "; model.path takes any folder or repository"
            mistakes.append(f"{where}: model.model_family and model_size: no model {name!r}{told}")


def _settle_lora(settings: Settings, mistakes: list[str]) -> None:
    """Weights that are trained cannot be held in few bits."""
    rank, quantize = settings.get("lora.r"), settings.get("lora.quantize")
    if quantize is not None and quantize.value is not None and (rank is None or rank.value is None):
        mistakes.append(f"{quantize.place}: needs model.lora_rank, an adapter beside the frozen weights; set it")


def _settle_rewards(settings: Settings, mistakes: list[str]) -> None:
    functions, weights = settings.pop("rewards.functions", None), settings.pop("rewards.weights", None)
    names = functions.value if functions else tuple(reward.function for reward in _DEFAULT.rewards)
    given = weights.value if weights and weights.value is not None else (1.0,) * len(names)
    if weights and len(given) != len(names):
        mistakes.append(f"{weights.place}: must be one for each of {len(names)} rewards, got {len(given)}")
    rewards = tuple(RewardSettings(function=name, weight=weight) for name, weight in zip(names, given, strict=False))
    settings["rewards"] = Setting(rewards, "rewards")


def _settle_benchmark(settings: Settings, mistakes: list[str]) -> None:
    """What a benchmark is to be like needs one."""
    suite, sets = settings.get("benchmark.suite"), settings.get("benchmark.datasets")
    if suite is None or suite.value is not None or (sets is not None and sets.value):
        return
    whole = BenchmarkSettings()
    for name, default in (("compare", whole.compare), ("max_tokens", whole.max_tokens)):
        setting = settings.get(f"benchmark.{name}")
        if setting is not None and setting.value != default:
            mistakes.append(f"{setting.place}: has no effect without benchmark.suite; set quick or standard")


def _build(values: Mapping[str, Any]) -> GrpoConfig:
    def section(prefix: str) -> dict[str, Any]:
        names = {key: key.removeprefix(f"{prefix}.") for key in values if key.startswith(f"{prefix}.")}
        return {name: values[key] for key, name in names.items() if "." not in name}

    lora = {name: value for name, value in section("lora").items() if value is not None}
    prompt = {name: value for name, value in section("prompt").items() if value is not None}
    optimizer = {**asdict(_DEFAULT.optimizer), **section("optimizer")}
    return GrpoConfig(
        **{name: values[name] for name in ("backend", "seed", "resume", "rewards") if name in values},
        model=GrpoModelSettings(**section("model"), lora=LoraSettings(**lora) if "r" in lora else None),
        optimizer=OptimizerSettings(**optimizer),
        grpo=GrpoSettings(**section("grpo")),
        generation=GenerationSettings(**section("generation")),
        training=GrpoTrainingSettings(**section("training")),
        data=GrpoDataSettings(**section("data"), curriculum=CurriculumSettings(**section("data.curriculum"))),
        prompt=PromptSettings(**prompt),
        tracking=TrackingSettings(**section("tracking"), benchmark=make_benchmark(section("benchmark"))),
    )
