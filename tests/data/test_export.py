import json

import pytest

from tracetune.core.errors import InputError
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.data.export import export_lines

ROW = StoredTrace(
    "11111111-2222-4333-8444-555555555555",
    "2025-01-02T03:04:05.000006+00:00",
    Trace(
        "1.0",
        "What is 2 × 3?",
        "6",
        (Step(4, "think", "2 × 3 = 6"), Step(1, "check", "6 = 3 + 3")),
        {"source": "doc", "created_at": "fake", "format": "fake", "source_trace_id": "fake", "tags": ["é", None, 1.5]},
    ),
)


def line(export_format: str, row: StoredTrace = ROW, **options) -> str:
    return b"".join(export_lines([row], export_format, **options)).decode()


def test_trace_rows_are_the_contracts_bytes():
    assert line("trace") == (
        '{"id":"11111111-2222-4333-8444-555555555555","prompts":"What is 2 × 3?",'
        '"trace_steps":["2 × 3 = 6","6 = 3 + 3"],"final_answer":"6",'
        '"metadata":{"created_at":"2025-01-02T03:04:05.000006+00:00","trace_version":"1.0",'
        '"source":"doc","format":"fake","source_trace_id":"fake","tags":["é",null,1.5]}}\n'
    )


def test_tunix_sft_rows_are_the_contracts_bytes():
    assert line("tunix_sft") == (
        '{"id":"11111111-2222-4333-8444-555555555555",'
        '"prompts":"<start_of_turn>user\\nWhat is 2 × 3?<end_of_turn>\\n'
        '<start_of_turn>model\\nReasoning:\\n1. 2 × 3 = 6\\n2. 6 = 3 + 3\\nAnswer: 6<end_of_turn>","final_answer":"6",'
        '"metadata":{"created_at":"2025-01-02T03:04:05.000006+00:00","trace_version":"1.0",'
        '"source":"doc","source_trace_id":"fake","tags":["é",null,1.5],"format":"tunix_sft"}}\n'
    )


def test_training_example_rows_are_the_contracts_bytes():
    assert line("training_example") == (
        '{"id":"4b37ae47-0f79-5548-8e68-7e3441d2415a",'
        '"prompt":"What is 2 × 3?\\n\\nPlease show your reasoning steps.",'
        '"response":"Reasoning:\\n1. 2 × 3 = 6\\n2. 6 = 3 + 3\\nAnswer: 6",'
        '"metadata":{"source_trace_id":"11111111-2222-4333-8444-555555555555",'
        '"created_at":"2025-01-02T03:04:05.000006+00:00","trace_version":"1.0",'
        '"source":"doc","format":"fake","tags":["é",null,1.5]}}\n'
    )


def test_a_system_instruction_stands_before_the_prompt_with_a_blank_line():
    prompts = json.loads(line("tunix_sft", system_instruction="Think first."))["prompts"]
    assert prompts.startswith(
        "<start_of_turn>user\nThink first.\n\nWhat is 2 × 3?<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("export_format", ["trace", "training_example"])
def test_a_format_without_a_place_for_the_instruction_refuses_it(export_format):
    with pytest.raises(InputError, match="only tunix_sft"):
        export_lines([ROW], export_format, system_instruction="Think first.")
    assert line(export_format, system_instruction=None)


def test_without_steps_only_the_answer_is_written():
    bare = StoredTrace("id", "t", Trace("1.0", "p", "a", ()))
    assert json.loads(line("tunix_sft", bare))["prompts"].endswith("<start_of_turn>model\nAnswer: a<end_of_turn>")
    assert json.loads(line("training_example", bare))["response"] == "Answer: a"
    assert json.loads(line("trace", bare)) == {
        "id": "id",
        "prompts": "p",
        "trace_steps": [],
        "final_answer": "a",
        "metadata": {"created_at": "t", "trace_version": "1.0"},
    }


def test_a_training_examples_id_stands_for_its_content():
    ids = [
        json.loads(line("training_example", row))["id"]
        for row in (ROW, StoredTrace("other", "later", ROW.trace), StoredTrace(ROW.id, "t", Trace("1.0", "p", "a", ())))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_line_is_one_line_whatever_the_text():
    row = StoredTrace("id", "t", Trace("1.0", 'a\n"b"\r\u2028\\', "<end_of_turn>", (Step(0, "s", "\x00"),)))
    written = line("trace", row)
    assert written.count("\n") == 1
    assert json.loads(written)["prompts"] == row.trace.prompt


def test_an_unknown_format_is_refused_before_any_row():
    with pytest.raises(InputError, match="trace, tunix_sft, training_example"):
        export_lines(iter([]), "csv")
    assert list(export_lines(iter([]), "trace")) == []
