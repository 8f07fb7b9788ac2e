"""What a key means is written once, beside the dial that checks it; the tables and the reference are made of that."""

from collections import Counter

import pytest
from docs.pages.configuration import README, page, programs, settings, table, with_tables

from tracetune.config.check import Dial
from tracetune.config.kinds import TEXT

PROGRAMS = programs()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_setting_is_told_once_beside_its_dial(program):
    times = Counter(dial.target for dial in program.dials if dial.told)
    assert not [target for target, count in times.items() if count != 1]
    assert not [dial.key for dial in program.dials if not times[dial.target]], "give one of its keys a sentence: `told`"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_page_and_a_table_have_every_key(program):
    written, told = page(), table(program)
    assert not [dial.key for dial in program.dials if f"`{dial.key}`" not in written]
    assert not [dial.key for dial in program.dials if f"`{dial.key}`" not in told]


def test_the_tables_of_the_workspace_are_those_of_the_dials():
    readme = README.read_text(encoding="utf-8")
    assert readme == with_tables(readme), "run python -m docs.pages.configuration"


def test_a_key_without_a_sentence_of_its_own_is_another_spelling():
    dials = (Dial("a.b", "x", TEXT, "what it is"), Dial("b", "x", TEXT), Dial("c", "y", TEXT, "another"))
    assert [(found.dial.key, [other.key for other in found.others]) for found in settings(dials)] == [
        ("a.b", ["b"]),
        ("c", []),
    ]


def test_a_default_is_read_from_the_typed_config():
    defaults = {program.name: program.defaults for program in PROGRAMS}
    sft, grpo = defaults["sft"], defaults["grpo"]
    assert (sft["optimizer.learning_rate"], sft["model.lora"], sft["model.lora.r"]) == ("`1e-5`", "`null`", "`16`")
    assert grpo["model.lora_rank"] == "`32`, of `gemma3_test` `4`, of `tiny` `null`"
