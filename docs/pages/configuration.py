"""Every key of every configuration, from the dials: a page of the reference, and the tables of training/README.md.

`python -m docs.pages.configuration` writes those tables anew.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tracetune.config import resolve, rlvr
from tracetune.config.check import Dial, leaves
from tracetune.config.compose import CONF, options
from tracetune.config.dials import DIALS
from tracetune.config.distill_dials import OWN_DIALS
from tracetune.config.distill_schema import DistillConfig
from tracetune.config.evaluation import EVALUATION_DIALS, EvaluationSettings
from tracetune.config.grpo import config_mapping, plain
from tracetune.config.grpo_dials import EVALUATE_DIALS, GRPO_DIALS
from tracetune.config.rlvr_dials import RLVR_DIALS, VERIFIERS
from tracetune.config.schema import LoraSettings, ModelSettings, SftConfig

README = Path(__file__).parents[2] / "training" / "README.md"


class Program(NamedTuple):
    """One table of dials. `name` marks its place in training/README.md; `defaults` has what a told key is by itself,
    already as Markdown."""

    name: str
    title: str
    intro: str
    dials: Sequence[Dial]
    defaults: Mapping[str, str]


class Setting(NamedTuple):
    """One thing that can be set: the dial that tells it, and its other spellings."""

    dial: Dial
    others: tuple[Dial, ...]


@cache
def programs() -> tuple[Program, ...]:
    """Every configuration that a user can write."""
    return (
        Program(
            "sft",
            "Supervised fine-tuning",
            "A YAML file for `tracetune sft --config` and `training/sft.py`, or words `key=value` after the command.",
            DIALS,
            _sft_defaults(),
        ),
        Program(
            "distillation",
            "Distillation",
            "A YAML file for `tracetune distill --config` and `training/distillation.py`. Beside these it has every "
            "key of supervised fine-tuning, which the student's training is.",
            OWN_DIALS,
            _distill_defaults(),
        ),
        Program(
            "grpo",
            "GRPO",
            "Words `key=value` of `tracetune train` and `run_training.py`, or files of your own by `--config-dir`.",
            GRPO_DIALS,
            _hydra_defaults("config") | _model_defaults(),
        ),
        Program(
            "rlvr",
            "Reinforcement learning with verifiable rewards",
            "A YAML file for `tracetune rlvr --config` and `training/rlvr.py`, or words `key=value` after the command.",
            RLVR_DIALS,
            _rlvr_defaults(),
        ),
        Program(
            "evaluate",
            "Evaluating a GRPO checkpoint",
            "Words `key=value` of `tracetune eval checkpoint` and `evaluate.py`.",
            EVALUATE_DIALS,
            _hydra_defaults("evaluate"),
        ),
        Program(
            "evaluation",
            "An evaluation over HTTP",
            "The `overrides` of `POST /api/evaluations`.",
            EVALUATION_DIALS,
            {key: spelled(value) for key, value in vars(EvaluationSettings()).items()},
        ),
    )


def settings(dials: Sequence[Dial]) -> list[Setting]:
    """What can be set, in the order of the table, each with every key that sets it."""
    return [
        Setting(told, tuple(dial for dial in dials if not dial.told and dial.target == told.target))
        for told in dials
        if told.told
    ]


def table(program: Program) -> str:
    """The keys of a program as the table of training/README.md."""
    lines = ["", "| what | keys | value | default |", "|---|---|---|---|"]
    for setting in settings(program.dials):
        keys = " · ".join(f"`{dial.key}`" for dial in (setting.dial, *setting.others))
        lines.append(
            f"| {setting.dial.told} | {keys} | {_values(setting.dial)} | {program.defaults[setting.dial.key]} |"
        )
    return "\n".join((*lines, ""))


def page() -> str:
    """The reference: each setting with its values, its default, what it does and its other spellings."""
    lines = [
        "# Configuration",
        "",
        "Written from the dials that check every value, so nothing here can be out of date. A key that does not stand "
        "here is refused with the nearest that does; every mistake of a file is told at once.",
    ]
    for program in programs():
        lines += ["", f"## {program.title}", "", program.intro]
        for section, members in groupby(_in_sections(program.dials), key=lambda pair: pair[0]):
            lines += ["", f"### {program.title}: {section}"]
            for _, setting in members:
                lines += ["", *_entry(setting, program.defaults[setting.dial.key])]
    return "\n".join(lines) + "\n"


def with_tables(readme: str) -> str:
    """The text of training/README.md with each table between its markers written anew."""
    for program in programs():
        begin, end = f"<!-- keys of {program.name}: python -m docs.pages.configuration -->\n", "\n<!-- end of keys -->"
        if begin in readme:
            before, _, after = readme.partition(begin)
            readme = f"{before}{begin}{table(program)}{end}{after.partition(end)[2]}"
    return readme


def spelled(value: Any) -> str:
    """A default as it is written in a file, in Markdown."""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _entry(setting: Setting, default: str) -> Iterator[str]:
    """One setting as a term and its definition."""
    yield f"`{setting.dial.key}`"
    told = _linked(setting.dial.told, "..")
    yield f": {told[0].upper()}{told[1:]}."
    yield f"  *Is* {_values(setting.dial)}; *default* {default}."
    for other in setting.others:
        differs = other.kind.meaning != setting.dial.kind.meaning
        yield f"  *Also* `{other.key}`{f', which is {_values(other)}' if differs else ''}."


def _linked(told: str, docs: str) -> str:
    """A sentence whose `(docs/page.md)` leads there from a page that has `docs` beside it."""
    return re.sub(r"\(docs/([\w-]+\.md)\)", rf"([docs/\1]({docs}/\1))", told)


def _values(dial: Dial) -> str:
    return dial.kind.meaning.replace("'", "`")


def _in_sections(dials: Sequence[Dial]) -> list[tuple[str, Setting]]:
    """Each setting after the name of its section, sections in the order in which they first come."""
    found = [(setting.dial.key.partition(".")[0], setting) for setting in settings(dials)]
    top = {name for name, setting in found if "." not in setting.dial.key} - {
        name for name, setting in found if "." in setting.dial.key
    }
    named = [("the run" if name in top else name, setting) for name, setting in found]
    order = list(dict.fromkeys(name for name, _ in named))
    return sorted(named, key=lambda pair: order.index(pair[0]))


def _sft_defaults() -> dict[str, str]:
    """Of a run without an adapter, and beside it what an adapter is when it is asked for."""
    adapted = SftConfig(model=ModelSettings(lora=LoraSettings()))
    values = dict(leaves(resolve.config_mapping(adapted)) + leaves(resolve.config_mapping(SftConfig())))
    # There is one optimizer, so no setting remembers its name.
    return {"training.optimizer": "`adamw`"} | {key: spelled(value) for key, value in values.items()}


def _distill_defaults() -> dict[str, str]:
    """As typed; with `on_policy` two of them are others."""
    told = {key: spelled(value) for key, value in leaves(asdict(DistillConfig()))}
    told["teacher.top_k"] += ", with `on_policy` `1`"
    told["distillation.loss"] += ", with `on_policy` `reverse_kl`"
    return told


def _rlvr_defaults() -> dict[str, str]:
    """Those of GRPO, by what each key sets, but for what only this file has."""
    config = rlvr.load_rlvr_config({"data": {"train_file": "-"}}).config
    by_key = {key: spelled(value) for key, value in leaves(config_mapping(config))}
    grpo = {dial.target: by_key[dial.key] for dial in GRPO_DIALS if dial.key in by_key}
    adapter = {f"lora.{name}": spelled(value) for name, value in vars(LoraSettings()).items()}
    own = {"model.path": "`tiny`", "data.data_path": "none", "output": "none"}
    own |= {f"verifiers.{name}": spelled(rlvr.DEFAULT_VERIFIERS.get(name)) for name in VERIFIERS}
    found = {**grpo, **adapter, **own}
    return {dial.key: found[dial.target or ""] for dial in RLVR_DIALS if dial.told}


def _hydra_defaults(config_name: str) -> dict[str, str]:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return {key: spelled(value) for key, value in leaves(plain(compose(config_name)))}


def _model_defaults() -> dict[str, str]:
    """Of the keys of the group `model`: what most of its options have, and the one or two exceptions."""
    files = {name: _group_file(CONF / "model" / f"{name}.yaml") for name in options("model")}
    told = {}
    for key in files["tiny"]:
        written = {name: spelled(file[key]) for name, file in files.items()}
        common, times = Counter(written.values()).most_common(1)[0]
        exceptions = [f"of `{name}` {value}" for name, value in written.items() if value != common]
        told[f"model.{key}"] = ", ".join((common, *exceptions)) if times >= len(files) - 2 else "by `model=`"
    return told


def _group_file(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
