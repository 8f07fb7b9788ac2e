"""From stored traces to a frozen dataset: what every door does."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tracetune.app.datasets import (
    Cleaning,
    Origin,
    build_dataset,
    dataset_tokens,
    diff_datasets,
    export_dataset,
    export_to_file,
    length_histogram,
    list_datasets,
    open_dataset,
    register_evalset,
)
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.trace import Step, Trace
from tracetune.core.values import Problem
from tracetune.store.open import open_store
from tracetune.store.traces import add_traces, delete_trace

pytestmark = pytest.mark.slow

BUILD = """
import sys
from tracetune.app.datasets import build_dataset
manifest = build_dataset("race", "v1", limit=int(sys.argv[1]))
print(manifest.build_id, manifest.content_hash)
"""


def sum_trace(a: int, b: int, **meta) -> Trace:
    return Trace("1.0", f"What is {a} + {b}?", str(a + b), (Step(0, "add", f"{a} + {b} = {a + b}"),), meta or None)


def ingest(traces: list[Trace]) -> tuple[str, ...]:
    with open_store() as store:
        return add_traces(store, traces).ids


@pytest.fixture
def sums(home) -> tuple[str, ...]:
    return ingest(
        [sum_trace(a, 1, source="sums", size={"a": a}, tags=["even" if a % 2 == 0 else "odd"]) for a in range(20)]
    )


def test_a_build_freezes_the_newest_first_with_its_facts(database, sums, home):
    manifest = build_dataset("demo", "v1", limit=5, origin=Origin(session_id="s", provenance={"by": "me"}))
    assert manifest.dataset_key == "demo-v1"
    assert manifest.trace_ids == sums[:-6:-1]
    assert (manifest.trace_count, manifest.stats.trace_count) == (5, 5)
    value = json.loads((home / "datasets/demo-v1/manifest.json").read_text())
    assert (value["session_id"], value["provenance"], value["limit"]) == ("s", {"by": "me"}, 5)
    assert [row.trace.final_answer for row in open_dataset("demo-v1").iter_traces()] == ["20", "19", "18", "17", "16"]


def test_filters_reach_the_oldest_trace_and_into_meta(database, sums):
    assert build_dataset("old", "v1", filters={"size.a": 0}).trace_ids == (sums[0],)
    assert build_dataset("even", "v1", filters={"tags": "even", "source": "sums"}).trace_count == 10


def test_a_rebuild_is_the_same_build_and_other_content_is_refused(sums):
    first = build_dataset("demo", "v1")
    assert build_dataset("demo", "v1") == first
    ingest([sum_trace(7, 7)])
    with pytest.raises(Conflict, match="demo-v1"):
        build_dataset("demo", "v1")
    assert build_dataset("demo", "v2").trace_count == first.trace_count + 1
    assert [record.dataset_key for record in list_datasets()] == ["demo-v2", "demo-v1"]


def test_deleting_a_trace_changes_no_frozen_row(sums):
    build_dataset("demo", "v1")
    before = list(open_dataset("demo-v1").iter_traces())
    with open_store() as store:
        delete_trace(store, sums[3])
    assert list(open_dataset("demo-v1").iter_traces()) == before


def test_the_content_hash_is_the_same_in_every_home(sums, tmp_path, monkeypatch):
    here = build_dataset("demo", "v1", strategy="random", seed=5, limit=8)
    monkeypatch.setenv("TRACETUNE_HOME", str(tmp_path / "elsewhere"))
    # The same traces, stored one by one in another order.
    with open_store() as store:
        for a in reversed(range(20)):
            tags = ["even" if a % 2 == 0 else "odd"]
            add_traces(store, [sum_trace(a, 1, source="sums", size={"a": a}, tags=tags)])
    there = build_dataset("other name", "v9", strategy="random", seed=5, limit=8)
    assert there.content_hash == here.content_hash
    assert build_dataset("demo", "v2", strategy="random", seed=6, limit=8).content_hash != here.content_hash


def test_duplicates_are_dropped_and_counted(database):
    # The same sum twice with other meta: two traces, one lesson.
    ingest([sum_trace(1, 2, run=1), sum_trace(1, 2, run=2), sum_trace(1, 3)])
    manifest = build_dataset("demo", "v1")
    assert (manifest.trace_count, manifest.dedup["exact"]["dropped"]) == (2, 1)
    assert build_dataset("all", "v1", cleaning=Cleaning(exact_dedup=False, near_dedup=None)).trace_count == 3


def test_eval_problems_never_enter_a_dataset(sums, tmp_path):
    path = tmp_path / "held_out.jsonl"
    rows = [{"id": f"e{a}", "prompt": f"what is {a}+1", "expected_answer": str(a + 1)} for a in (2, 3, 50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build_dataset("unchecked", "v1").contamination["verdict"] == "unchecked"
    registered = register_evalset(path)
    manifest = build_dataset("demo", "v1")
    verdict = manifest.contamination
    assert (verdict["verdict"], verdict["rows_dropped"], manifest.trace_count) == ("clean", 2, 18)
    assert verdict["eval_sets"] == [
        {
            "name": "held_out",
            "content_hash": registered.content_hash,
            "problems_checked": 3,
            "contaminated_count": 2,
            "trace_ids": [sums[3], sums[2]],
        }
    ]
    assert not {sums[2], sums[3]} & set(manifest.trace_ids)


def test_policies_keep_and_fail_do_what_they_say(sums):
    register_evalset([Problem("e", "What is 2 + 1?", "3")], "held-out")
    with pytest.raises(InputError, match="1 of 20 rows"):
        build_dataset("demo", "v1", cleaning=Cleaning(contamination="fail"))
    kept = build_dataset("demo", "v1", cleaning=Cleaning(contamination="keep"))
    assert (kept.contamination["verdict"], kept.trace_count) == ("contaminated", 20)
    assert build_dataset("demo", "v2", cleaning=Cleaning(contamination="drop")).trace_count == 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": {"source": "nobody"}}, "no trace matches"),
        ({"filters": {"a": {1}}}, "filters: must be JSON"),
        ({"strategy": "random"}, "seed"),
        ({"limit": 0}, "limit"),
        ({"cleaning": Cleaning(near_dedup=2.0)}, "near_dedup"),
    ],
)
def test_a_build_that_cannot_be_is_refused_and_leaves_nothing(sums, home, options, message):
    with pytest.raises(InputError, match=message):
        build_dataset("demo", "v1", **options)
    assert list_datasets() == []
    assert not list((home / "datasets").glob("demo*"))
    assert build_dataset("demo", "v1", filters={"source": "sums"}).trace_count == 20


def test_a_dataset_of_eval_problems_only_is_refused(home):
    ingest([sum_trace(1, 1)])
    register_evalset([Problem("e", "What is 1 + 1?", "2")], "held-out")
    with pytest.raises(InputError, match="no row is left of 1"):
        build_dataset("demo", "v1")
    ingest([sum_trace(1, 2)])
    assert build_dataset("demo", "v1").trace_count == 1


def test_an_empty_store_is_told_as_such(home):
    with pytest.raises(InputError, match="ingest traces"):
        build_dataset("demo", "v1")


@pytest.mark.slow
def test_of_four_processes_building_one_version_one_content_wins(database, sums, home):
    def run(limit: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", BUILD, str(limit)], capture_output=True, text=True)

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(run, [19, 20, 19, 20]))
    dataset = open_dataset("race-v1")
    manifest = dataset.manifest
    assert not [result.stderr for result in done if result.returncode and "Conflict" not in result.stderr]
    winners = [result.stdout.strip() for result in done if result.returncode == 0]
    assert winners == [f"{manifest.build_id} {manifest.content_hash}"] * 2
    assert len(list(dataset.iter_traces())) == manifest.trace_count
    assert [record.build_id for record in list_datasets()] == [manifest.build_id]
    assert {path.name for path in (home / "datasets").iterdir()} == {"race-v1", ".race-v1.lock"}


def test_an_export_streams_and_a_file_holds_the_same_bytes(sums, tmp_path):
    build_dataset("demo", "v1", limit=3)
    lines = list(export_dataset("demo-v1", "tunix_sft", system_instruction="Add."))
    assert json.loads(lines[0])["prompts"].startswith("<start_of_turn>user\nAdd.\n\nWhat is 19 + 1?<end_of_turn>")
    path = tmp_path / "deep" / "rows.jsonl"
    assert export_to_file("demo-v1", path, "tunix_sft", system_instruction="Add.") == 3
    assert path.read_bytes() == b"".join(lines)


def test_a_diff_names_rows_and_shows_examples(home):
    ingest([sum_trace(1, 1), sum_trace(2, 2)])
    build_dataset("demo", "v1")
    ingest([Trace("1.0", "What is 2 + 2?", "four", (Step(0, "add", "2 and 2 make 4"),)), sum_trace(3, 3)])
    old, new = build_dataset("demo", "v2", limit=2), build_dataset("demo", "v3")
    found = diff_datasets("demo-v1", "demo-v3")
    assert (found.diff.num_unchanged, len(found.diff.added), found.diff.removed) == (2, 2, ())
    found = diff_datasets("demo-v1", "demo-v2", num_examples=1)
    change = found.diff.changed[0]
    assert (found.examples[change.before].trace.final_answer, found.examples[change.after].trace.final_answer) == (
        "4",
        "four",
    )
    assert (found.before.dataset_key, found.after) == ("demo-v1", old)
    assert new.trace_count == 4


def test_the_histogram_counts_every_row_once(sums):
    build_dataset("demo", "v1")
    bins = length_histogram(open_dataset("demo-v1"), num_bins=3)
    assert sum(item.num_rows for item in bins) == 20
    assert all(one.high == other.low for one, other in pairwise(bins))


def test_tokens_are_shown_as_they_are_trained(sums, tmp_path):
    build_dataset("demo", "v1", limit=2)
    views = dataset_tokens(open_dataset("demo-v1"), num_rows=2)
    assert [view.trace_id for view in views] == [sums[-1], sums[-2]]
    trained = "".join(span.text for span in views[0].spans if span.trained and not span.control)
    assert trained == "Reasoning:\n1. 19 + 1 = 20\nAnswer: 20"
    assert views[0].spans[-1].control
    assert views[0].spans[-1].trained
    with pytest.raises(NotFound, match="nowhere"):
        dataset_tokens(open_dataset("demo-v1"), tokenizer=str(tmp_path / "nowhere"))


def test_problems_without_a_file_need_a_name(home):
    with pytest.raises(InputError, match="name"):
        register_evalset([Problem("e", "p", "a")])
    assert register_evalset([Problem("e", "p", "a")], "named").name == "named"


@pytest.mark.slow
def test_datasets_need_no_jax(home):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tracetune.app.datasets, tracetune.cli.dataset; print('jax' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
