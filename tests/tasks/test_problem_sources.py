"""Problems from files and built-in tasks: every kind of row, every bad line by its place, nothing asked twice."""

import json

import pytest

from tracetune.config.grpo_schema import GrpoDataSettings
from tracetune.core.errors import InputError, NotFound
from tracetune.tasks.arithmetic import Arithmetic
from tracetune.tasks.evalset import write_evalset
from tracetune.tasks.problem_sources import ProblemSource, load_problems, source_of
from tracetune.tasks.question_rows import question_hash

pytestmark = pytest.mark.slow

GSM8K = {"question": "Two dozen?", "answer": "2 * 12 = <<2*12=24>>24\n#### 24"}


def written(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def only(tmp_path, row, **options):
    """The one problem of a file of one row."""
    (problem,) = load_problems(ProblemSource(kind="jsonl", name=written(tmp_path / "rows.jsonl", row), **options)).train
    return problem


@pytest.mark.parametrize(
    ("row", "prompt", "answer", "meta"),
    [
        (GSM8K, "Two dozen?", "24", {}),
        ({**GSM8K, "answer": "so\n#### 1,024", "set": "a"}, "Two dozen?", "1024", {"set": "a"}),
        ({**GSM8K, "answer": "so\n#### -3"}, "Two dozen?", "-3", {}),
        ({**GSM8K, "answer": "#### Rome, Italy"}, "Two dozen?", "Rome, Italy", {}),
        ({"question": "2 + 3?", "answer": "5"}, "2 + 3?", "5", {}),
        ({"prompt": "2 + 3?", "answer": 5}, "2 + 3?", "5", {}),
        ({"problem": "2 + 3?", "answer": 2.5, "level": 3}, "2 + 3?", "2.5", {"level": 3}),
        ({"prompt": "2 + 3?", "answer": "5", "response": "I say 6"}, "2 + 3?", "5", {"response": "I say 6"}),
        ({"prompt": "2 + 3?", "response": "2 + 3 = 5\n#### 5"}, "2 + 3?", "5", {}),
        ({"prompt": "2 + 3?", "response": "<reasoning>add</reasoning><answer>5</answer>"}, "2 + 3?", "5", {}),
        ({"messages": [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "2"}]}, "2?", "2", {}),
        (
            {
                "trace_version": "1.0",
                "id": "t-1",
                "created_at": "2026-01-01",
                "prompt": "2 + 3?",
                "final_answer": "5",
                "steps": [{"i": 0, "type": "sum", "content": "2 + 3 = 5"}],
                "meta": {"answer": "5"},
            },
            "2 + 3?",
            "5",
            {"answer": "5"},
        ),
    ],
)
def test_every_kind_of_row_is_a_question_its_gold_answer_and_the_rest(tmp_path, row, prompt, answer, meta):
    problem = only(tmp_path, row)
    assert (problem.prompt, problem.answer, problem.meta) == (prompt, answer, meta)
    assert problem.id == f"q-{question_hash(prompt)[:16]}"


def test_the_rows_of_an_eval_set_are_the_problems_that_were_written(tmp_path):
    problems = tuple(Arithmetic(difficulty="hard").problems(20, 0))
    write_evalset(problems, tmp_path / "set.jsonl")
    assert load_problems(ProblemSource(kind="jsonl", name=str(tmp_path / "set.jsonl"))).train == problems


def test_columns_by_other_names_are_named(tmp_path):
    row = {"Body": "2 + 3?", "Gold": 5, "question": "not this", "meta": {"a": 1}}
    problem = only(tmp_path, row, columns=("Body", "Gold"))
    assert (problem.prompt, problem.answer) == ("2 + 3?", "5")
    assert problem.meta == {"question": "not this", "meta": {"a": 1}}
    with pytest.raises(InputError, match=r"rows\.jsonl:1: has no column 'Text', its columns are Body, Gold"):
        only(tmp_path, row, columns=("Text", "Gold"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be a JSON object, got list"),
        ({"text": "2 + 3 = 5"}, "no known kind of row, got the fields 'text'"),
        ({"question": "?", "answer": "first\nthen"}, "answer must end with '#### <gold answer>'"),
        ({"question": "?", "answer": "so ####  "}, "answer must have its gold answer on the line of ####"),
        ({"question": "?", "answer": True}, "answer must be text or a number, got True"),
        ({"question": " ", "answer": "5"}, "question must be text or a number, got ' '"),
        ({"question": "?", "prompt": "?", "answer": "5"}, "has both question and prompt"),
        ({"question": "?", "answer": "5", "meta": 3}, "meta must be an object, got 3"),
        ({"id": "a", "prompt": "another?", "answer": "5"}, "id 'a' is already that of .*rows\\.jsonl:1"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, bad, message):
    good = {"id": "a", "prompt": "2 + 3?", "answer": "5"}
    rows = ("[[1]]",) if bad == "[1]" else (good, "", bad)
    line = 1 if bad == "[1]" else 3
    path = written(tmp_path / "rows.jsonl", *rows)
    with pytest.raises(InputError, match=rf"rows\.jsonl:{line}: .*{message}"):
        load_problems(ProblemSource(kind="jsonl", name=path))


def test_a_test_file_is_tested_on_and_its_questions_do_not_train(tmp_path):
    rows = [{"question": f"{number} + 1?", "answer": number + 1} for number in range(10)]
    train, test = written(tmp_path / "train.jsonl", *rows), written(tmp_path / "test.jsonl", *rows[:3])
    loaded = load_problems(ProblemSource(kind="jsonl", name=train, test=test, num_train=5, num_test=2))
    assert [problem.answer for problem in loaded.train] == ["4", "5", "6", "7", "8"]
    assert [problem.answer for problem in loaded.test] == ["1", "2"]
    assert loaded.left_out == {"also in the test set": 3, "beyond num_train": 2, "beyond num_test": 1}
    with pytest.raises(InputError, match="has no problem to train on, got 10 to test on, left out 10 also in the"):
        load_problems(ProblemSource(kind="jsonl", name=train, test=train))


def test_a_missing_file_and_one_without_rows_are_errors(tmp_path):
    with pytest.raises(NotFound, match=r"nowhere\.jsonl: no such file"):
        load_problems(ProblemSource(kind="jsonl", name=str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(InputError, match="holds no rows"):
        load_problems(ProblemSource(kind="jsonl", name=written(tmp_path / "empty.jsonl")))


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic:easy", "high_card_duel"])
def test_a_built_in_task_has_enough_questions_and_never_trains_on_a_test_question(name):
    source = ProblemSource(kind="builtin", name=name, num_train=400, num_test=100)
    loaded = load_problems(source)
    prompts = [problem.prompt for problem in (*loaded.train, *loaded.test)]
    assert (len(loaded.train), len(loaded.test), len(set(prompts))) == (400, 100, 500)
    assert loaded == load_problems(source)


@pytest.mark.long
def test_seeds_and_sizes_move_no_question_from_test_to_train():
    def load(seed, num_train):
        return load_problems(
            ProblemSource(kind="builtin", name="high_card_duel", seed=seed, num_train=num_train, num_test=300)
        )

    small, large = load(0, 100), load(7, 3000)
    assert not {p.prompt for p in small.test} & {p.prompt for p in large.train}
    assert {p.prompt for p in small.train} & {p.prompt for p in large.train}
    assert load(0, 200).train[:100] == small.train
    assert load(1, 100).train != small.train


@pytest.mark.slow
def test_the_questions_of_a_small_task_run_out_and_the_task_says_so_by_its_size():
    options = {"difficulty": "easy", "word_problems": 0.0, "digits": (1, 1), "operations": "+"}
    loaded = load_problems(ProblemSource(kind="builtin", name="arithmetic", options=options))
    assert 40 < len(loaded.train) + len(loaded.test) <= 64
    assert loaded.test


def test_options_reach_the_task_and_a_mistake_in_them_is_refused():
    options = {"difficulty": "easy", "operations": "+", "word_problems": 0.0}
    loaded = load_problems(ProblemSource(kind="builtin", name="arithmetic", options=options, num_train=20))
    assert all(" + " in problem.prompt for problem in loaded.train)
    with pytest.raises(InputError, match="unknown option 'operation', did you mean 'operations'"):
        load_problems(ProblemSource(kind="builtin", name="arithmetic", options={"operation": "+"}))
    with pytest.raises(NotFound, match="did you mean 'arithmetic'"):
        load_problems(ProblemSource(kind="builtin", name="arithmetik"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hf"}, "kind must be one of builtin, jsonl, huggingface, tfds, kaggle, got 'hf'"),
        ({"name": ""}, "data source jsonl: has no name"),
        ({"train_fraction": 1.5}, "train_fraction must be from 0 to 1, got 1.5"),
        ({"num_train": -1}, "num_train must be at least 0"),
        ({"options": {"split": "all"}}, "split cannot be set"),
    ],
)
def test_a_source_that_names_nothing_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        ProblemSource(**{"kind": "jsonl", "name": "rows.jsonl", **fields})


def test_a_hubs_dataset_is_problems_like_any_other(tmp_path):
    card = "---\nconfigs:\n- config_name: main\n  data_files: {train: a.csv, test: b.csv}\n---"
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "a.csv").write_text('question,answer\n1 + 1?,#### 2\n2 + 2?,"so\n#### 1,004"\n')
    (tmp_path / "b.csv").write_text("question,answer\n1 + 1?,#### 2\n")
    loaded = load_problems(ProblemSource(kind="huggingface", name=str(tmp_path), subset="main", test="test"))
    assert [(problem.prompt, problem.answer) for problem in loaded.train] == [("2 + 2?", "1004")]
    assert [problem.answer for problem in loaded.test] == ["2"]
    assert loaded.left_out == {"also in the test set": 1}
    local = load_problems(ProblemSource(kind="kaggle", name=str(tmp_path), split="a.csv", test="b.csv"))
    assert local == loaded
    (tmp_path / "a.csv").write_text("question,answer\n1 + 1?,#### 2\n2 + 2?,\n")
    with pytest.raises(InputError, match=r"a\.csv:3: answer must be text or a number, got ''"):
        load_problems(ProblemSource(kind="huggingface", name=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"kind": "builtin", "name": "arithmetic"}),
        ({"task": "high_card_duel"}, {"kind": "builtin", "name": "high_card_duel"}),
        ({"data_source": "jsonl", "data_path": "a:b.jsonl"}, {"kind": "jsonl", "name": "a:b.jsonl", "held_out": 0.1}),
        ({"data_source": "huggingface"}, {"kind": "huggingface", "name": "openai/gsm8k", "subset": "main"}),
        (
            {"data_source": "huggingface", "data_path": "openai/gsm8k:socratic", "split": "all"},
            {"kind": "huggingface", "name": "openai/gsm8k", "subset": "socratic", "split": "all", "held_out": 0.1},
        ),
        ({"data_source": "tfds"}, {"kind": "tfds", "name": "gsm8k"}),
        ({"data_source": "tfds", "data_path": "a/b:1.0.0"}, {"kind": "tfds", "name": "a/b:1.0.0", "held_out": 0.1}),
        (
            {"data_source": "kaggle"},
            {"kind": "kaggle", "name": "thedevastator/grade-school-math-8k-q-a", "subset": "main"},
        ),
    ],
)
def test_a_configuration_names_one_source_with_something_to_validate_on(settings, expected):
    source = source_of(GrpoDataSettings(**settings), num_train=None, num_test=8, seed=3)
    assert (source.num_test, source.seed) == (8, 3)
    for field, value in {"subset": None, "split": "train", **expected}.items():
        assert (getattr(source, field) if field != "held_out" else 1 - source.train_fraction) == pytest.approx(value)
    has_its_own = source.kind == "builtin" or source.test == "test"
    assert has_its_own == ("held_out" not in expected)


def test_the_number_validated_on_moves_no_question_into_training(tmp_path):
    rows = [{"question": f"{number} + 1?", "answer": number + 1} for number in range(200)]
    settings = GrpoDataSettings(data_source="jsonl", data_path=written(tmp_path / "rows.jsonl", *rows))
    few, many, none = (load_problems(source_of(settings, num_train=None, num_test=n, seed=0)) for n in (2, 200, 0))
    assert (len(few.test), few.train) == (2, many.train)
    assert len(many.train) + len(many.test) == 200
    assert (len(none.train), none.test) == (200, ())
