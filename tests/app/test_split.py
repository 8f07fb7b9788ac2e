"""Files are split by grade or topic: every row is somewhere, no problem on two sides, the same by the same seed."""

import hashlib
import json

import pytest

from tracetune.app.split import split_file
from tracetune.core.errors import Conflict, InputError


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def lines(folder):
    return {path.stem: path.read_text().splitlines() for path in sorted(folder.glob("*.jsonl"))}


def test_every_row_is_on_one_side_byte_for_byte_and_the_manifest_counts_them(tmp_path):
    rows = [f'{{"prompt": "Problem {n}",  "grade": {n % 3 + 1}, "x": 1.50}}' for n in range(90)]
    manifest = split_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out")
    sides = lines(tmp_path / "out")
    assert sorted(line for side in sides.values() for line in side) == sorted(rows)
    assert {side: len(found) for side, found in sides.items()} == {"train": 72, "eval": 9, "test": 9}
    assert manifest["strata"] == {grade: {"train": 24, "eval": 3, "test": 3} for grade in ("1", "2", "3")}
    assert manifest == json.loads((tmp_path / "out" / "split_manifest.json").read_text())
    for name, file in manifest["files"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == file["sha256"]


def test_one_problem_in_many_spellings_is_on_one_side(tmp_path):
    rows = [
        {"prompt": f"What  is {n} + {m % 2}? ".upper() if m > 1 else f"What is {n} + {m}?"}
        for n in range(40)
        for m in range(4)
    ]
    manifest = split_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out")
    assert (manifest["num_rows"], manifest["num_problems"]) == (160, 80)
    seen = [
        {" ".join(json.loads(line)["prompt"].lower().split()) for line in side}
        for side in lines(tmp_path / "out").values()
    ]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 80


def test_the_seed_decides_and_a_split_may_be_made_again(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": f"p {n}"} for n in range(50)])
    first = split_file(source, tmp_path / "out")
    assert split_file(source, tmp_path / "out") == first
    assert split_file(source, tmp_path / "out", seed=7)["files"] != first["files"]


def test_topics_are_strata_too_and_rows_without_one_have_their_own(tmp_path):
    rows = [{"question": f"q {n}", "topic_tags": [["area", "money"], [], ["money"]][n % 3]} for n in range(30)]
    manifest = split_file(write(tmp_path / "in.jsonl", rows), tmp_path / "out", by="topic")
    assert {name: sum(counts.values()) for name, counts in manifest["strata"].items()} == {
        "area": 10,
        "money": 10,
        "none": 10,
    }


def test_a_share_of_nothing_writes_no_file(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": f"p {n}"} for n in range(20)])
    split_file(source, tmp_path / "out", test_share=0)
    assert set(lines(tmp_path / "out")) == {"train", "eval"}
    assert {name: len(side) for name, side in lines(tmp_path / "out").items()} == {"train": 18, "eval": 2}


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"prompt": "p"}])
    with pytest.raises(Conflict, match="something other than a split"):
        split_file(source, tmp_path)
    assert source.is_file()


@pytest.mark.parametrize(
    ("row", "shares", "reason"),
    [
        ("{", {}, r"in.jsonl:1: not JSON"),
        ('{"answer": 1}', {}, r"in.jsonl:1: has none of"),
        ('{"prompt": "p", "grade": [1]}', {}, r"in.jsonl:1: grade must be text or a number"),
        ('{"prompt": "p"}', {"eval_share": 0.7, "test_share": 0.6}, r"split: eval and test can have 1 together"),
    ],
)
def test_what_cannot_be_split_is_told_and_nothing_is_written(tmp_path, row, shares, reason):
    with pytest.raises(InputError, match=reason):
        split_file(write(tmp_path / "in.jsonl", [row]), tmp_path / "out", **shares)
    assert not (tmp_path / "out").exists()


def test_gsm8k_is_split_with_every_row_accounted_for(gsm8k, tmp_path):
    manifest = split_file(gsm8k / "train.jsonl", tmp_path / "out", eval_share=0.05, test_share=0.05)
    assert sum(file["num_rows"] for file in manifest["files"].values()) == 7473
    written = [line for side in lines(tmp_path / "out").values() for line in side]
    assert sorted(written) == sorted((gsm8k / "train.jsonl").read_text().splitlines())
    assert abs(manifest["files"]["eval.jsonl"]["num_rows"] - 373.65) < 2
