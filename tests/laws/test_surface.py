"""What users touch: every verb is documented, importable, and `--help` loads nothing heavy."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import tracetune
from tracetune.cli.main import app

ROOT = Path(__file__).parents[2]
HEAVY = ("jax", "optax", "pyarrow", "scipy", "sqlalchemy", "alembic", "tokenizers", "huggingface_hub")
HEAVY += ("omegaconf", "hydra")


def commands(group: typer.Typer = app, prefix: str = "tracetune") -> Iterator[tuple[str, object]]:
    """Every command with its full name and its function."""
    for command in group.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        yield f"{prefix} {name}", command.callback
    for inner in group.registered_groups:
        yield from commands(inner.typer_instance, f"{prefix} {inner.name}")


def test_every_command_stands_in_the_readme_and_says_what_it_does():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name, _ in commands() if name not in readme]
    assert not missing
    assert not [name for name, function in commands() if not function.__doc__]


def test_every_script_of_the_workspace_stands_in_its_readme():
    readme = (ROOT / "training" / "README.md").read_text()
    assert not [path.name for path in (ROOT / "training").glob("*.py") if path.name not in readme]


def test_every_key_of_a_training_file_is_documented():
    from tracetune.config.dials import DIALS

    readme = (ROOT / "training" / "README.md").read_text()
    missing = sorted({dial.key for dial in DIALS if f"`{dial.key}`" not in readme})
    assert not missing, "tell it beside its dial, then run python -m docs.pages.configuration"


def test_every_key_of_a_distillation_file_is_documented():
    from tracetune.config.distill_dials import DISTILL_DIALS

    readme = (ROOT / "training" / "README.md").read_text()
    assert not sorted({dial.key for dial in DISTILL_DIALS if f"`{dial.key}`" not in readme})


def test_every_key_of_an_rlvr_file_is_documented():
    from tracetune.config.rlvr_dials import RLVR_DIALS

    readme = (ROOT / "training" / "README.md").read_text()
    assert not sorted({dial.key for dial in RLVR_DIALS if f"`{dial.key}`" not in readme})


def test_every_key_and_option_of_grpo_is_documented():
    from tracetune.config.compose import EVALUATE, TRAIN, options
    from tracetune.config.grpo_dials import EVALUATE_DIALS, GRPO_DIALS

    readme = (ROOT / "training" / "README.md").read_text()
    groups = (*TRAIN.groups, *TRAIN.added_groups, *EVALUATE.groups)
    names = {dial.key for dial in (*GRPO_DIALS, *EVALUATE_DIALS)} | {name for each in groups for name in options(each)}
    assert not sorted(name for name in names if f"`{name}`" not in readme)


def test_every_script_at_the_root_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert not [path.name for path in ROOT.glob("*.py") if f"`{path.name}`" not in readme]


@pytest.mark.parametrize("verb", tracetune.__all__)
def test_each_verb_is_a_documented_function_of_the_package(verb):
    assert getattr(tracetune, verb).__doc__


def test_a_shell_that_completes_names_offers_the_verbs():
    assert dir(tracetune) == sorted(tracetune.__all__)


def test_a_name_that_is_no_verb_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = tracetune.trian


@pytest.mark.parametrize("load", ["import tracetune", "import tracetune.cli.main"])
def test_help_and_import_load_nothing_heavy(load):
    code = f"import sys; {load}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_error_of_ours_is_one_line_and_exit_one(tmp_path):
    command = [sys.executable, "-m", "tracetune", "ingest", str(tmp_path / "nothing.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    good = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=False)
    assert good.returncode == 0
