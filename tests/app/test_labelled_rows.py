"""What `tag` and `split` leave is what training, GRPO and a benchmark read: one row goes the whole way."""

import json

import pytest

from tracetune.app.split import split_file
from tracetune.core.errors import InputError
from tracetune.core.labels import Labels
from tracetune.data.formats import row_to_trace
from tracetune.data.records import Record
from tracetune.data.rows import parse_training_row
from tracetune.data.tag_rows import tag_record
from tracetune.data.tagger import Tagger
from tracetune.data.taxonomy import load_taxonomy
from tracetune.tasks.benchmark_rows import parse_item, read_items
from tracetune.tasks.question_rows import row_to_problem

TRACE = {
    "trace_version": "1.0",
    "prompt": "What is 25% of 80?",
    "final_answer": "20",
    "steps": [{"i": 0, "type": "reasoning", "content": "80 / 4 = 20"}],
    "meta": {"source": "by hand", "difficulty": "easy"},
}
PAIR = {"prompt": "What is 25% of 80?", "response": "80 / 4 = 20\n20", "grade": 6}


def tagged(row):

    data = json.dumps(row).encode()
    record = Record(line=1, offset=0, end=len(data), data=data)
    return json.loads(tag_record(record, "f:1", Tagger(load_taxonomy())).line)


@pytest.mark.parametrize("row", [TRACE, PAIR])
def test_a_tagged_row_is_trained_on_with_its_topics(row):
    assert parse_training_row(tagged(row), "f:1").labels.topics == ("percent",)


@pytest.mark.parametrize("row", [TRACE, PAIR])
def test_a_tagged_row_is_a_problem_and_an_item_of_mathematics(row):
    problem, item = row_to_problem(tagged(row), "f:1"), parse_item(tagged(row), "mine", "f:1")
    assert (problem.answer, item.expected_answer) == ("20", "20")
    assert item.part == "math"
    assert item.topics == ("percent",)


def test_labels_beside_a_trace_join_its_meta_and_its_own_stay():
    trace = row_to_trace(tagged(TRACE))
    assert trace.meta is not None
    assert trace.meta["source"] == "by hand"
    assert trace.meta["topic_tags"] == ["percent"]
    assert "confidence" in trace.meta["tagging_metadata"]


def test_other_fields_beside_a_trace_and_a_meta_that_is_none_are_still_refused():
    with pytest.raises(InputError, match="unknown field 'colour'"):
        row_to_trace({**TRACE, "topic_tags": [], "colour": "red"})
    with pytest.raises(InputError, match="meta must be an object"):
        row_to_trace({**TRACE, "topic_tags": [], "meta": "red"})


def test_a_split_finds_labels_in_meta_too(tmp_path):
    rows = [{**TRACE, "prompt": f"{n}?", "meta": {"grade": 3 + n % 2}} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = split_file(tmp_path / "rows.jsonl", tmp_path / "out", eval_share=0.25, test_share=0.0)
    assert manifest["strata"] == {"3": {"train": 3, "eval": 1}, "4": {"train": 3, "eval": 1}}


def test_the_same_item_twice_counts_once_and_another_of_its_name_is_refused(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(2 * (json.dumps(TRACE) + "\n"))
    assert len(read_items(path, "mine")) == 1
    path.write_text(json.dumps(TRACE) + "\n" + json.dumps({**TRACE, "final_answer": "21"}) + "\n")
    with pytest.raises(InputError, match=r"set\.jsonl:2: id .* came before with other content"):
        read_items(path, "mine")


def test_a_grade_is_spelled_in_one_way():
    assert parse_training_row({**PAIR, "grade": "Grade 6"}, "f:1").labels == Labels("6")
