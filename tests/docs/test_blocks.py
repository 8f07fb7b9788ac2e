"""What the pages show is right: commands are of the real command line, settings of the real configuration."""

import ast
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs.pages.commands import commands, parameters
from omegaconf import OmegaConf
from tests.docs.markdown import ROOT, Block, blocks

import tracetune
from tracetune.cli.main import app
from tracetune.config.compose import EVALUATE, TRAIN
from tracetune.config.distill import load_distill_config
from tracetune.config.program import check_words
from tracetune.config.resolve import load_sft_config
from tracetune.config.rlvr import load_rlvr_config
from tracetune.core.errors import InputError

COMMANDS = dict(commands(app))
HYDRA = {
    "tracetune train": TRAIN,
    "run_training.py": TRAIN,
    "tracetune eval checkpoint": EVALUATE,
    "evaluate.py": EVALUATE,
}
SCRIPTS = {
    "training/sft.py": "tracetune sft",
    "training/train_sft_tunix.py": "tracetune sft",
    "training/distillation.py": "tracetune distill",
    "training/rlvr.py": "tracetune rlvr",
    "training/benchmark.py": "tracetune benchmark",
}
# What reads the `key=value` words of a command.
WORDS = {
    "tracetune sft": load_sft_config,
    "tracetune distill": load_distill_config,
    "tracetune rlvr": partial(load_rlvr_config, data=Path("problems.jsonl")),
}
# By a section that no other file has; a file without any of them is one of supervised fine-tuning.
LOADERS = {"teacher": load_distill_config, "verifiers": load_rlvr_config}
SETTING = re.compile(r"[a-z_][\w.]*=.*")


def typed(block: Block) -> Iterator[list[str]]:
    """The words of each line that calls one of our commands; usage in brackets and what is piped on left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if _is_ours(line) else []
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        ends = [place for place, word in enumerate(words) if word in ("|", "&", "&&", ">", ";")]
        if words and (words := words[: min(ends, default=len(words))]):
            yield [_bare(word) for word in words]


def _bare(word: str) -> str:
    """Without the brackets of a usage line, which stand around `[--option VALUE]`."""
    return word.strip("[]") if word.startswith("[--") or "[" not in word else word


def _is_ours(line: str) -> bool:
    return re.match(r"(\$ )?([A-Z_]+=\S* )*(tracetune |python (training/|run_training|evaluate))", line) is not None


def mistake(words: Sequence[str]) -> str | None:
    """What is wrong with a command, None when it could be typed."""
    words = list(words[1:]) if words[0] == "python" else list(words)
    depth = next((size for size in (3, 2) if " ".join(words[:size]) in (*COMMANDS, *HYDRA)), 1)
    name, rest = " ".join(words[:depth]), words[depth:]
    if name in HYDRA:
        return _wrong_words(name, rest)
    name = SCRIPTS.get(name, name)
    if name.startswith("training/"):
        return None if (ROOT / name).is_file() else f"there is no {name}"
    if name not in COMMANDS:
        return f"there is no command {name}"
    known = {option for parameter in parameters(COMMANDS[name]) for option in parameter.names}
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
    if unknown:
        return f"{name} has no option {unknown[0]}"
    return _wrong_settings(name, [word for word in rest if SETTING.fullmatch(word)]) if name in WORDS else None


def _wrong_words(name: str, words: Sequence[str]) -> str | None:
    try:
        check_words(HYDRA[name], [word for word in words if word != "…"])
    except InputError as error:
        return str(error)
    return None


def _wrong_settings(name: str, words: Sequence[str]) -> str | None:
    try:
        WORDS[name](None, words)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("block", blocks("", "bash", "console"), ids=lambda block: block.place)
def test_every_command_shown_could_be_typed(block):
    assert not [(words, told) for words in typed(block) if (told := mistake(words))]


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_every_settings_file_shown_is_accepted(block):
    content = OmegaConf.to_container(OmegaConf.create(block.text))
    assert isinstance(content, dict)
    load = next((load for section, load in LOADERS.items() if section in content), load_sft_config)
    load({str(key): value for key, value in content.items()}, where=block.place)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.place)
def test_every_json_shown_is_json(block):
    assert [json.loads(line) for line in block.text.splitlines()]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_every_program_shown_compiles_and_finds_what_it_imports(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not [name.name for name in node.names if find_spec(name.name) is None]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tracetune":
            assert node.attr in tracetune.__all__


def test_a_reward_shown_rewards():
    (block,) = [block for block in blocks("python") if "def brief_and_right" in block.text]
    names: dict = {}
    exec(block.text, names)
    assert names["brief_and_right"](["?", "?"], ["It is 5.", "It is 6"], ["5", "5"]) == pytest.approx([0.992, -0.007])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("tracetune sft --data rows.jsonl --outptu run", "has no option --outptu"),
        ("tracetune sft learning_rat=1", "did you mean learning_rate"),
        ("tracetune evaluate run", "there is no command"),
        ("python run_training.py model=tony", "no such option 'tony'"),
        ("python training/nothing.py", "there is no training/nothing.py"),
        ("A=1 tracetune sft --config x.yaml batch_size=4 | tail", None),
    ],
)
def test_a_command_that_could_not_be_typed_is_found(line, told):
    (words,) = typed(Block("here", "bash", line))
    found = mistake(words)
    assert found is None if told is None else told in (found or "")
