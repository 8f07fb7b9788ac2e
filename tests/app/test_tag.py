"""Files of problems get their topics: nothing else changes, nothing is half written, test rows are told loudly."""

import json
import os
from collections import Counter

import pytest

from tracetune.app.tag import TagSettings, evaluate_tags, tag_file, tag_problem
from tracetune.core.errors import InputError, NotFound
from tracetune.data.records import BATCH_ROWS


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_keeps_its_bytes_and_gets_its_topics_last(tmp_path):
    line = '{"id":7,  "question": "What is 25% of 80?", "x": 1.50, "ü": [1e3, null]  }'
    source = write(tmp_path / "in.jsonl", [line, "", line])
    report = tag_file(source, tmp_path / "out.jsonl")
    assert (report.num_rows, report.untagged, report.kept, report.topics) == (2, 0, 0, Counter(percent=2))
    for written in (tmp_path / "out.jsonl").read_text().splitlines():
        assert written.startswith(line.rstrip("} ") + ", ")
        assert list(json.loads(written)) == ["id", "question", "x", "ü", "topic_tags", "tagging_metadata"]
    row = read(tmp_path / "out.jsonl")[0]
    assert row["topic_tags"] == ["percent"]
    assert row["tagging_metadata"] == {
        "auto_tags": ["percent"],
        "confidence": {"percent": 0.95},
        "grade_suggestions": [5, 6, 7],
    }


def test_topics_that_are_there_stay_and_tagging_twice_changes_nothing(tmp_path):
    own = write(tmp_path / "in.jsonl", [{"prompt": "What is 25% of 80?", "topic_tags": ["mine"]}, {"prompt": "2x+3=7"}])
    assert tag_file(own, tmp_path / "once.jsonl").kept == 1
    once = read(tmp_path / "once.jsonl")
    assert once[0]["topic_tags"] == ["mine"]
    assert once[0]["tagging_metadata"]["auto_tags"] == ["percent"]
    tag_file(tmp_path / "once.jsonl", tmp_path / "twice.jsonl")
    assert read(tmp_path / "twice.jsonl") == once


def test_arrays_and_conversations_are_read(tmp_path):
    turns = [{"role": "system", "content": "Teach."}, {"role": "user", "content": "Find the area of the circle."}]
    (tmp_path / "in.json").write_text(json.dumps([{"messages": turns}, {"problem": "2x+3=7"}], indent=1))
    tag_file(tmp_path / "in.json", tmp_path / "out.jsonl")
    assert [row["topic_tags"] for row in read(tmp_path / "out.jsonl")] == [["area", "circles"], ["linear_equations"]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "a"', r"in.jsonl:2: not JSON"),
        ('{"answer": "a"}', r"in.jsonl:2: has none of question, prompt, problem"),
        ('{"question": 7}', r"in.jsonl:2: question must be text, got 7"),
        ('{"question": " "}', r"in.jsonl:2: question must be text"),
        ("[1]", r"in.jsonl:2: a row must be a JSON object"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path, line, reason):
    (tmp_path / "out.jsonl").write_text("before")
    source = write(tmp_path / "in.jsonl", [{"question": "2x+3=7"}, line])
    with pytest.raises(InputError, match=reason):
        tag_file(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_file_that_is_not_there_or_empty_is_told(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        tag_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="has no rows"):
        tag_file(write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("source", "output", "warns"),
    [
        ("test.jsonl", "tagged.jsonl", True),
        ("gsm8k_test.jsonl", "train_tagged.jsonl", True),
        ("held-out.jsonl", "out.jsonl", True),
        ("eval_v1.jsonl", "train.jsonl", True),
        ("test/part.jsonl", "out.jsonl", True),
        ("test.jsonl", "test_tagged.jsonl", False),
        ("train.jsonl", "tagged.jsonl", False),
        ("latest.jsonl", "contest_tagged.jsonl", False),
    ],
)
def test_a_test_split_that_becomes_training_data_is_told_loudly(tmp_path, source, output, warns):
    (tmp_path / "test").mkdir()
    heard = []
    tag_file(write(tmp_path / source, [{"question": "2x+3=7"}]), tmp_path / output, warn=heard.append)
    assert bool(heard) == warns
    assert all("looks like a test split" in warning for warning in heard)


def test_rows_that_say_they_are_of_a_test_split_are_counted(tmp_path):
    rows = [{"question": "2x+3=7", "split": split} for split in ("train", "test", "held_out", "train")]
    source = write(tmp_path / "all.jsonl", rows)
    (warning,) = tag_file(source, tmp_path / "tagged.jsonl").warnings
    assert "all.jsonl:2: each of 2 rows from here on says that it is of a test split" in warning
    assert tag_file(source, tmp_path / "eval.jsonl").warnings == ()


@pytest.mark.slow
def test_processes_give_the_same_bytes_and_name_the_same_line(tmp_path):
    rows = [{"question": f"What is {number}% of {number + 7}?"} for number in range(3 * BATCH_ROWS + 1)]
    source = write(tmp_path / "in.jsonl", rows)
    for workers in (1, 2):
        tag_file(source, tmp_path / f"{workers}.jsonl", workers=workers)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    write(source, [*rows, "{"])
    with pytest.raises(InputError, match=f"in.jsonl:{len(rows) + 1}: not JSON"):
        tag_file(source, tmp_path / "2.jsonl", workers=2)
    assert len(read(tmp_path / "2.jsonl")) == len(rows)


def test_labels_are_compared_topic_by_topic(tmp_path):
    labelled = write(
        tmp_path / "labelled.jsonl",
        [
            {"question": "What is 25% of 80?", "topic_tags": ["percent"]},
            {"question": "What is 25% of 80?", "topic_tags": ["area"]},
        ],
    )
    scores = {score.topic: (score.right, score.wrong, score.missed) for score in evaluate_tags(labelled)}
    assert scores == {"area": (0, 0, 1), "percent": (1, 1, 0), "all": (1, 1, 1)}
    with pytest.raises(InputError, match=r"labelled.jsonl:1: topic_tags must be a list"):
        evaluate_tags(write(labelled, [{"question": "x"}]))


def test_a_taxonomy_that_changes_is_read_again(tmp_path):
    mine = tmp_path / "mine.toml"
    text = '[strands]\ns = "S"\n[topics.eggs]\nname = "Eggs"\nstrand = "s"\ngrades = [1, 2]\nsure = ["egg"]\n'
    mine.write_text(text)
    assert tag_problem("3 hens", TagSettings(mine))["topic_tags"] == []
    mine.write_text(text.replace('"egg"', '"hen"'))
    os.utime(mine, ns=(1, 1))
    assert tag_problem("3 hens", TagSettings(mine))["topic_tags"] == ["eggs"]


def test_one_problem_and_a_taxonomy_of_ones_own(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('[strands]\ns = "S"\n[topics.eggs]\nname = "Eggs"\nstrand = "s"\ngrades = [1, 2]\nsure = ["egg"]\n')
    assert tag_problem("Count 3 eggs", TagSettings(mine))["topic_tags"] == ["eggs"]
    with pytest.raises(InputError, match="question must be text"):
        tag_problem("  ")


@pytest.mark.slow
def test_every_row_of_gsm8k_is_tagged(gsm8k, tmp_path):
    report = tag_file(gsm8k / "train.jsonl", tmp_path / "tagged.jsonl", workers=1)
    assert report.num_rows == 7473
    assert report.untagged < 0.1 * report.num_rows
    with (gsm8k / "train.jsonl").open() as before, (tmp_path / "tagged.jsonl").open() as after:
        for old, new in zip(before, after, strict=True):
            assert new.startswith(old.rstrip()[:-1])
