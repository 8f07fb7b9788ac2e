"""`tracetune generate`: prompts in, completions out, in order and seeded."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tracetune.app.generate import generate
from tracetune.cli.main import app
from tracetune.core.errors import InputError

ROWS = [
    {"prompt": "2+3?"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+3?"}]},
    {"token_ids": [4, 5, 6]},
    {"token_ids": [10**6]},
]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.slow
def test_every_row_comes_back_with_its_completion_and_how_it_ended(tmp_path):
    file = write(tmp_path / "rows.jsonl", *ROWS)
    flags = ["--max-tokens", "4", "--temperature", "1", "--top-k", "50", "--top-p", "0.9", "--seed", "3"]
    first, again = (CliRunner().invoke(app, ["generate", "tiny", str(file), *flags]) for _ in range(2))
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert first.stdout == again.stdout
    assert [row["stop_reason"] for row in rows[:3]] != ["error"] * 3
    assert rows[0]["prompt"] == "2+3?"
    assert rows[2]["prompt_token_ids"] == [4, 5, 6]
    assert [len(row["token_ids"]) for row in rows] == [len(row["logprobs"]) for row in rows]
    assert rows[3]["stop_reason"] == "error"
    assert "outside the vocabulary" in rows[3]["error"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "a", "extra": 1}, "unknown field 'extra'"),
        ({}, "exactly one of prompt, messages, token_ids, got none"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "must be user's"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, bad, message):
    file = write(tmp_path / "rows.jsonl", ROWS[0], bad)
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: .*{message}"):
        next(generate("tiny", file))
