"""Which files are a split, in the layouts that hubs have, and the rows of every kind of file."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.data.dataset_files import find_split, read_file_rows

ROWS = [{"question": "2 + 3?", "answer": "5"}, {"question": 'Say "a,\nb"', "answer": "né"}]
SHARDS = "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet"
HASHED_SHARDS = "train-00000-of-00002-00aa11bb22cc33dd.parquet train-00001-of-00002-ffaa11bb22cc33dd.parquet"
NUMBERED = "main/train/0000.parquet main/train/0001.parquet"
SAVED = "train/data-00000-of-00001.arrow"


def laid(folder, *paths):
    """Empty files at these paths."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def found(folder, subset, split):
    return [file.relative_to(folder).as_posix() for file in find_split(folder, subset, split, "dataset 'x'")]


@pytest.mark.parametrize(
    ("paths", "subset", "split", "expected"),
    [
        ("train.jsonl test.jsonl", None, "train", "train.jsonl"),
        ("main_train.csv main_test.csv socratic_train.csv", "main", "train", "main_train.csv"),
        ("main_train.csv socratic_train.csv", None, "main_train", "main_train.csv"),
        (f"{SHARDS} data/test-00000-of-00001.parquet", None, "train", SHARDS),
        (HASHED_SHARDS, None, "train", HASHED_SHARDS),
        (f"{NUMBERED} other/train/0000.parquet", "main", "train", NUMBERED),
        (f"{SAVED} train/state.json train/cache-1.arrow dataset_dict.json", None, "train", SAVED),
        ("train.csv train_1k.csv train_socratic.csv", None, "train", "train.csv"),
        ("train.csv train.parquet", None, "train.csv", "train.csv"),
        ("rows.csv others.csv", None, "rows.csv", "rows.csv"),
    ],
)
def test_a_split_is_found_in_the_layouts_that_hubs_have(tmp_path, paths, subset, split, expected):
    assert found(laid(tmp_path, *paths.split()), subset, split) == expected.split()


def test_words_are_whole_so_that_retrain_is_not_train(tmp_path):
    laid(tmp_path, "retrain.csv", "trainer.csv", ".hidden/train.csv", "train.txt")
    with pytest.raises(NotFound, match=r"has no file of train, there are retrain\.csv, trainer\.csv; choose another"):
        found(tmp_path, None, "train")


def test_two_tables_are_never_read_as_one(tmp_path):
    laid(tmp_path, "main_train.csv", "socratic_train.csv")
    with pytest.raises(InputError, match=r"train may be main_train\.csv or socratic_train\.csv; name the subset"):
        found(tmp_path, None, "train")
    laid(tmp_path / "levels", "level-1/train.csv", "level-2/train.csv")
    with pytest.raises(InputError, match=r"train may be level-1/train\.csv or level-2/train\.csv"):
        found(tmp_path / "levels", None, "train")
    assert found(tmp_path / "levels", "level-2", "train") == ["level-2/train.csv"]


def test_a_missing_shard_is_an_error(tmp_path):
    laid(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(NotFound, match="dataset 'x': train has 2 of its 3 shards; fetch the dataset again"):
        found(tmp_path, None, "train")


def written(path, rows):
    """The rows as a file of the kind that the suffix tells."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".csv", ".tsv"):
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "json", "jsonl", "ndjson", "csv", "tsv"])
def test_every_kind_of_file_gives_its_rows_back(tmp_path, suffix):
    assert [row for _, row in read_file_rows(written(tmp_path / f"rows.{suffix}", ROWS))] == ROWS


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_rows_of_a_table_are_named_by_number_and_half_a_file_is_refused(tmp_path, suffix):
    path = written(tmp_path / f"rows.{suffix}", ROWS)
    assert [where for where, _ in read_file_rows(path)] == [f"{path}: row 1", f"{path}: row 2"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is no whole .*; fetch it again"):
        list(read_file_rows(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"rows\.csv:3: must have 2 fields"),
        ("a,b\n1,2,3\n", r"rows\.csv:2: must have 2 fields"),
        ('a,b\n1,"2\n', r"rows\.csv: is not CSV in UTF-8"),
        (b"a,b\n\xff,1\n", r"rows\.csv: is not CSV in UTF-8"),
    ],
)
def test_a_broken_csv_is_refused_and_a_mark_before_it_is_not_a_column(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        list(read_file_rows(path))
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert list(read_file_rows(path)) == [(f"{path}:2", {"a": "1", "b": "2"})]
