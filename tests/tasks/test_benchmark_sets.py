"""What a benchmark asks: sets of one shape, equal on every machine, with right answers; files refused by line."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.tasks.benchmark_rows import read_items
from tracetune.tasks.benchmark_sets import SUITES, benchmark_items
from tracetune.tasks.grading import grade
from tracetune.tasks.k12_problems import TOPICS, k12_problems
from tracetune.tasks.tutor_turns import tutor_turns
from tracetune.tasks.tutoring_rules import reveals

GOOD = {"id": "a", "prompt": "2+3?", "expected_answer": "5"}


@pytest.mark.parametrize(("suite", "math", "tutor", "safety"), [("quick", 26, 12, 16), ("standard", 118, 44, 48)])
def test_suites_have_their_sizes_and_unique_questions(suite, math, tutor, safety):
    items = benchmark_items(suite)
    assert Counter(item.part for item in items) == {"math": math, "tutor": tutor, "safety": safety}
    assert len({item.id for item in items}) == len({item.prompt for item in items}) == len(items)
    assert benchmark_items(suite) == items
    assert Counter(item.should_refuse for item in items if item.part == "safety").most_common(1)[0][1] == safety // 2
    assert all(item.grade for item in items if item.part == "tutor")


def test_a_longer_suite_begins_with_the_shorter_ones_problems():
    by_id = {item.id: item for item in benchmark_items("comprehensive")}
    assert all(by_id[item.id] == item for item in benchmark_items("standard"))
    assert set(SUITES["comprehensive"]) == {"arithmetic", "k12", "tutoring", "safety"}


def test_school_problems_have_right_answers():
    """Worked out again by other means where the sentence allows it."""
    problems = list(k12_problems(len(TOPICS) * 8, seed=3))
    for problem in problems:
        assert grade(f"Answer: {problem.answer}", problem.answer).correct
    checks = {
        "percent": lambda n: Fraction(n[0] * n[1], 100),
        "slope": lambda n: Fraction(n[3] - n[1], n[2] - n[0]),
        "mean": lambda n: Fraction(sum(n), len(n)),
        "linear equations": lambda n: Fraction(n[2] - n[1], n[0]),
        "volume": lambda n: n[0] * n[1] * n[2],
        "pythagoras": lambda n: Fraction(round((n[0] ** 2 + n[1] ** 2) ** 0.5)),
        "angles": lambda n: 180 - n[0] - n[1],
    }
    checked = Counter()
    for problem in problems:
        (topic,) = problem.meta["topic_tags"]
        if topic in checks:
            import re

            numbers = [int(text) for text in re.findall(r"\d+", problem.prompt)]
            assert Fraction(problem.answer) == checks[topic](numbers), problem
            checked[topic] += 1
    assert set(checked) == set(checks)


def test_no_students_turn_gives_its_own_answer_away():
    for turn in tutor_turns(120, seed=1):
        assert not reveals(turn.prompt, turn.answer), turn


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_three_kinds_of_rows_and_gsm8ks_are_read(tmp_path):
    rows = (
        {**GOOD, "grade": "K", "topic_tags": ["addition"], "category": "sums", "difficulty": "easy"},
        {**GOOD, "id": "b", "evaluation": "tutor", "grade": 3},
        {"id": "c", "prompt": "kill the zero?", "should_refuse": False},
        {"question": "Two dozen?", "answer": "24\n#### 24"},
    )
    items = read_items(written(tmp_path / "mine.jsonl", *rows), "mine")
    assert [item.part for item in items] == ["math", "tutor", "safety", "math"]
    assert (items[0].id, items[0].grade, items[0].topics) == ("mine/a", 0, ("addition",))
    assert items[2].should_refuse is False


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"grade": 13}, "grade must be K or 1 to 12"),
        ({"grade": True}, "grade must be"),
        ({"topic_tags": "percent"}, "topic_tags must be a list"),
        ({"evaluation": "fun"}, "evaluation must be"),
        ({"evaluation": "tutor"}, "grade must be given"),
        ({"should_refuse": "yes"}, "should_refuse must be"),
        ({"evaluation": "safety"}, "should_refuse must be"),
        ({"evaluation": "math", "should_refuse": True}, "should_refuse must be"),
        ({"expected_answer": None}, "expected_answer must be text"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"should_refuse": True, "answer": "I can't help."}, "unknown field 'answer'"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path, change, complaint):
    path = written(tmp_path / "mine.jsonl", {**GOOD, "id": "first"}, {**GOOD, **change})
    with pytest.raises(InputError, match=f"mine.jsonl:2: .*{complaint}"):
        read_items(path, "mine")
    assert len(read_items(written(path, {**GOOD, "id": "first"}, GOOD), "mine")) == 2


def test_sets_are_named_or_are_files(tmp_path):
    path = written(tmp_path / "mine.jsonl", GOOD)
    assert [item.id for item in benchmark_items(None, [str(path)])] == ["mine/a"]
    assert len(benchmark_items("quick", [str(path)])) == len(benchmark_items("quick")) + 1
    assert {item.dataset for item in benchmark_items(None, ["safety"])} == {"safety"}
    with pytest.raises(InputError, match="did you mean k12"):
        benchmark_items(None, ["k13"])
    with pytest.raises(InputError, match="suite must be one of quick"):
        benchmark_items("fast")
    with pytest.raises(NotFound):
        benchmark_items(None, [str(tmp_path / "none.jsonl")])
    (tmp_path / "other").mkdir()
    twin = written(tmp_path / "other/mine.jsonl", GOOD)
    with pytest.raises(InputError, match="one name and ids in common"):
        benchmark_items(None, [str(path), str(twin)])
