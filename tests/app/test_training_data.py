"""Which rows a run trains on and which it holds out: files and weights, labels, lengths, shares by grade."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tracetune.app.examples import first_examples, parts_of, tokenize
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError
from tracetune.data.render import TrainingRow
from tracetune.models.tiny import tiny_tokenizer
from tracetune.train.steps import StepPlan


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(number: int, **labels) -> dict:
    return {"id": f"r{number}", "prompt": f"What is {number} + 1?", "response": f"Answer: {number + 1}", **labels}


@pytest.fixture
def graded(tmp_path) -> str:
    """40 rows of grade 3, 20 of grade 5, 4 without one; every fourth is about fractions."""
    grades = [3] * 40 + ["Grade 5"] * 20 + [None] * 4
    rows = [row(n, grade=grade, topic_tags=["sums", *["fractions"][: n % 4 == 0]]) for n, grade in enumerate(grades)]
    return write(tmp_path / "graded.jsonl", rows)


def read(data: dict, **training) -> TrainingData:
    return read_training_data(config_of(data, **training), data=None, dataset=None, max_samples=None, home=None)


def config_of(data: dict, **training):
    return load_sft_config({"data": data, "training": training, "model": {"max_length": 128}})


def grades(rows) -> Counter:
    return Counter(row.labels.grade for row in rows)


def test_rows_are_chosen_by_grade_and_by_topic_and_the_others_counted(graded):
    assert grades(read({"train_file": graded, "grades": ["grade 3"]}).rows) == {"3": 40}
    some = read({"train_file": graded, "grades": [5], "topics": ["fractions", "money"]})
    assert [row.id for row in some.rows] == ["r40", "r44", "r48", "r52", "r56"]
    assert some.left_out == "left out 59 rows that are not of grade 5 and topic fractions or money"
    assert read({"train_file": graded}).left_out == ""


def test_a_choice_that_takes_no_row_is_an_error(graded):
    with pytest.raises(InputError, match=r"graded\.jsonl: none of its 64 rows is of grade 7 \(data\.grades"):
        read({"train_file": graded, "grades": [7]})


@pytest.mark.parametrize(
    ("labels", "told"),
    [({"grade": [3]}, "grade must be text or a number"), ({"topic_tags": "sums"}, "a list of texts")],
)
def test_a_label_of_another_kind_is_refused_with_its_line(labels, told, tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(1), row(2, **labels)])
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: .*{told}"):
        read({"train_file": path})


def test_a_label_may_stand_in_the_meta_of_a_trace(tmp_path):
    step = {"i": 0, "type": "t", "content": "c"}
    trace = {"trace_version": "1.0", "prompt": "p", "final_answer": "4", "steps": [step], "meta": {"grade": "K"}}
    path = write(tmp_path / "rows.jsonl", [trace, {**trace, "prompt": "q", "meta": {"grade": 0.5}}, row(1, grade=1)])
    assert [row.id for row in read({"train_file": path, "grades": ["k"]}).rows] == ["rows.jsonl:1"]


def test_of_every_grade_the_same_share_is_held_out_and_never_a_question_that_trains(graded, tmp_path):
    found = read({"train_file": graded, "eval_fraction": 0.25}, seed=1)
    assert (len(found.rows), len(found.held_out)) == (48, 16)
    assert grades(found.held_out) == {"3": 10, "5": 5, None: 1}
    assert not {row.id for row in found.rows} & {row.id for row in found.held_out}
    asked_twice = [{**row(n // 2), "id": f"{n}", "response": f"say {n}"} for n in range(60)]
    found = read({"train_file": write(tmp_path / "twice.jsonl", asked_twice), "eval_fraction": 0.3})
    questions = [{row.messages[0].content for row in rows} for rows in (found.rows, found.held_out)]
    assert questions[0].isdisjoint(questions[1])
    assert len(questions[0] | questions[1]) == 30


def test_the_seed_decides_what_is_held_out(graded):
    data = {"train_file": graded, "eval_fraction": 0.25}
    held_out = [[row.id for row in read(data, seed=seed).held_out] for seed in (1, 1, 2)]
    assert held_out[0] == held_out[1] != held_out[2]
    facts = read_eval_rows(config_of(data, seed=1), read(data, seed=1))
    assert facts is not None
    assert (facts.facts["kind"], facts.facts["rows"]) == ("held_out", 16)


def test_a_share_that_leaves_a_side_empty_is_an_error(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(1), row(2)])
    with pytest.raises(InputError, match=r"data\.eval_fraction: 0\.01 of 2 rows leaves none to eval"):
        read({"train_file": path, "eval_fraction": 0.01})


def test_rows_to_evaluate_on_are_chosen_like_those_to_train_on(graded, tmp_path):
    other = write(tmp_path / "eval.jsonl", [row(100, grade=3), row(101, grade=4)])
    config = config_of({"train_file": graded, "eval_file": other, "grades": [3]})
    training = read_training_data(config, data=None, dataset=None, max_samples=None, home=None)
    held_out = read_eval_rows(config, training)
    assert held_out is not None
    assert [row.id for row in held_out.rows] == ["r100"]


def test_several_files_are_seen_by_weight_and_the_facts_count_each(tmp_path):
    files = [
        write(tmp_path / f"{name}.jsonl", [row(first + n) for n in range(8)]) for name, first in (("a", 0), ("b", 8))
    ]
    data = {"train_files": [{"path": files[0], "weight": 2}, {"path": files[1], "weight": 0.5}]}
    found, config = read(data), config_of(data)
    assert found.facts["files"] == [
        {"path": files[0], "weight": 2.0, "rows": 8},
        {"path": files[1], "weight": 0.5, "rows": 8},
    ]
    fitted = tokenize(found.rows, tiny_tokenizer(), config, say=print)
    plan = StepPlan.from_config(config, fitted.examples, pad_id=0, parts=parts_of(found.files, fitted))
    assert found.num_per_epoch == 20

    def seen(epoch: int) -> Counter[str]:
        steps = plan.epoch(epoch)
        ids = [
            name for step in range(len(steps)) for batch in steps[step] for names in batch.trace_ids for name in names
        ]
        return Counter(ids)

    assert [seen(0)[f"r{n}"] for n in range(8)] == [2] * 8
    assert sum(seen(0)[f"r{n}"] for n in range(8, 16)) == 4
    assert {name: count for name, count in (seen(0) + seen(1)).items() if int(name[1:]) >= 8} == {
        f"r{n}": 1 for n in range(8, 16)
    }


def test_the_hash_covers_the_rows_and_where_each_file_ends(tmp_path):
    rows = [row(n) for n in range(6)]
    ends = {}
    for end in (2, 3):
        files = [write(tmp_path / f"{end}-{part}.jsonl", some) for part, some in enumerate((rows[:end], rows[end:]))]
        ends[end] = read({"train_files": [files[0], {"path": files[1], "weight": 2}]}).facts["rows_hash"]
        assert ends[end] != read({"train_files": files}).facts["rows_hash"]
    assert ends[2] != ends[3]


def test_weights_that_leave_no_row_an_epoch_are_refused(tmp_path):
    data = {"train_files": [{"path": write(tmp_path / "a.jsonl", [row(1), row(2)]), "weight": 0.1}]}
    found = read(data)
    fitted = tokenize(found.rows, tiny_tokenizer(), config_of(data), say=print)
    with pytest.raises(InputError, match="less than one row an epoch"):
        parts_of(found.files, fitted)


def test_examples_of_another_length_are_left_out_with_a_count(tmp_path):
    rows = lengthening(tmp_path)
    every = tokenize(rows, tiny_tokenizer(), config_of({}), say=print).examples
    sizes = {one.trace_id: len(one.tokens) for one in every}
    told: list[str] = []
    fitted = tokenize(rows, tiny_tokenizer(), config_of({"min_tokens": 12, "max_tokens": 30}), say=told.append)
    assert [one.trace_id for one in fitted.examples] == [name for name, size in sizes.items() if 12 <= size <= 30]
    assert [rows[place].id for place in fitted.places] == [one.trace_id for one in fitted.examples]
    num_long, num_short = sum(size > 30 for size in sizes.values()), sum(size < 12 for size in sizes.values())
    assert told[0].startswith(f"left out {num_long} rows longer than 30 tokens (data.max_tokens): r")
    assert told[1].startswith(f"left out {num_short} rows shorter than 12 tokens (data.min_tokens): r1,")
    nowhere = config_of({"min_tokens": 120, "max_tokens": 125})
    with pytest.raises(InputError, match="no row has from 120 to 125 tokens"):
        tokenize(rows, tiny_tokenizer(), nowhere, say=print)


def lengthening(folder: Path) -> Sequence[TrainingRow]:
    texts = [{"id": f"r{n}", "prompt": "x" * n, "response": "y"} for n in range(1, 40)]
    return read({"train_file": write(folder / "rows.jsonl", texts)}).rows


def test_a_rehearsal_looks_for_the_first_rows_of_an_asked_length(tmp_path):
    found = first_examples(lengthening(tmp_path), tiny_tokenizer(), config_of({"min_tokens": 30}), 3, say=print)
    assert len(found) == 3
    assert all(len(example.tokens) >= 30 for example in found)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"train_file": "a", "train_files": ["b"]}, "data.train_files: contradicts config: data.train_file"),
        ({"eval_file": "a", "eval_fraction": 0.1}, "data.eval_fraction: contradicts config: data.eval_file"),
        ({"eval_fraction": 1.0}, "data.eval_fraction: must be a number above 0 and below 1"),
        ({"train_files": [{"path": "a", "wieght": 2}]}, "data.train_files: must be a list of files"),
        ({"train_files": ["a", "a"]}, "none twice"),
        ({"grades": 3}, "data.grades: must be a list of grades"),
        ({"max_tokens": 600}, "data.max_tokens: must not exceed model.max_length, 512 tokens a row, got 600"),
        ({"min_tokens": 40, "max_tokens": 30}, "data.min_tokens: must not exceed the 30 tokens"),
    ],
)
def test_a_choice_that_could_not_be_obeyed_is_refused(data, told):
    with pytest.raises(InputError) as caught:
        load_sft_config({"data": data})
    assert told in str(caught.value)


def test_overrides_name_files_with_weights_and_win_over_the_one_file():
    words = ["data.train_files=[a.jsonl,{path: b.jsonl, weight: 0.5}]", "data.grades=[K,1]"]
    config = load_sft_config({"data": {"train_file": "x.jsonl"}}, words)
    assert config.data.train_file is None
    assert [(file.path, file.weight) for file in config.data.train_files or ()] == [("a.jsonl", 1.0), ("b.jsonl", 0.5)]
    assert config.data.grades == ("K", "1")
