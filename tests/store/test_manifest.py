import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracetune.core.errors import Corrupt, InputError
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.store.manifest import Manifest, Origin, Stats, make_dataset_key, read_manifest, summarise

MANIFEST = Manifest(
    dataset_key="demo-v1",
    build_id="b",
    dataset_name="demo",
    dataset_version="v1",
    dataset_schema_version="1.0",
    created_at="t",
    filters={"a.b": [1]},
    selection_strategy="random",
    limit=10,
    seed=3,
    trace_ids=("x", "y"),
    trace_count=2,
    stats=Stats(trace_count=2, avg_step_count=1.5, min_step_count=1, max_step_count=2, avg_total_chars=9.0),
    origin=Origin(session_id="s", provenance={"by": "me"}),
    content_hash="c",
    dedup={},
    contamination={},
    rows_sha256="r",
)


@pytest.mark.parametrize(
    ("name", "version", "key"),
    [
        ("demo", "v1", "demo-v1"),
        ("gsm8k_train", "1.0.2", "gsm8k_train-1.0.2"),
        ("a-b", "c", "a-b-c"),
        ("Größe", "v1", "Größe-v1"),
    ],
)
def test_common_names_give_the_plain_key(name, version, key):
    assert make_dataset_key(name, version) == key


def test_spaces_and_slashes_become_underscores_before_the_suffix():
    assert make_dataset_key("my set/one", "v 1").startswith("my_set_one-v_1~")


ALIKE = [
    *(("a-b", "c"), ("a", "b-c"), ("a b", "1"), ("a_b", "1"), ("a/b", "1"), ("a\\b", "1"), ("a~b", "1"), ("a_b", " 1")),
    *(
        (".a", "1"),
        ("_a", "1"),
        ("a", ".."),
        ("..", "a"),
        ("n" * 128, "v" * 64),
        ("é" * 128, "1"),
        ("é" * 127 + "e", "1"),
    ),
    *(("é", "1"), ("e\u0301", "1"), ("a", "b-c~0"), ("a-b-c~0", "1")),
]


def test_two_pairs_never_share_a_key():
    keys = {pair: make_dataset_key(*pair) for pair in ALIKE}
    assert len(set(keys.values())) == len(ALIKE)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(*[st.text("ab-_ /.~", min_size=1, max_size=4).filter(str.strip)] * 2), max_size=10, unique=True)
)
def test_no_two_generated_pairs_share_a_key(pairs):
    for one, other in itertools.combinations(pairs, 2):
        assert make_dataset_key(*one) != make_dataset_key(*other)


@settings(deadline=None, max_examples=40)
@given(st.text(min_size=1, max_size=128).filter(str.strip), st.text(min_size=1, max_size=64).filter(str.strip))
def test_a_key_is_always_the_name_of_one_visible_folder(name, version):
    key = make_dataset_key(name, version)
    assert len(key.encode()) <= 220
    assert not key.startswith(".")
    assert not set(key) & set("/\\\0 \n:")


@pytest.mark.parametrize(("name", "version"), [("", "v"), (" ", "v"), ("n" * 129, "v"), ("n", ""), ("n", "v" * 65)])
def test_names_outside_the_limits_are_refused(name, version):
    with pytest.raises(InputError, match="dataset_"):
        make_dataset_key(name, version)
    assert make_dataset_key("n" * 128, "v" * 64)


def test_a_manifest_reads_back_equal_with_the_contracts_fields(tmp_path):
    path = tmp_path / "manifest.json"
    value = MANIFEST.to_json()
    path.write_text(json.dumps(value))
    assert read_manifest(path) == MANIFEST
    contract = (
        "dataset_key build_id dataset_name dataset_version dataset_schema_version created_at filters "
        "selection_strategy seed trace_ids trace_count stats session_id parent_dataset_id training_run_id provenance "
        "content_hash"
    )
    assert set(contract.split()) <= set(value)
    assert set(value["stats"]) == {
        *("trace_count", "avg_step_count", "min_step_count", "max_step_count", "avg_total_chars")
    }


def test_a_changed_manifest_is_refused_by_name(tmp_path):
    path = tmp_path / "manifest.json"
    for text in (
        "",
        "[]",
        "{}",
        json.dumps({**MANIFEST.to_json(), "trace_count": 3}),
        json.dumps(MANIFEST.to_json())[:-1],
    ):
        path.write_text(text)
        with pytest.raises(Corrupt, match=r"manifest\.json"):
            read_manifest(path)


def trace(prompt: str, num_steps: int) -> Trace:
    return Trace("1.0", prompt, "a", tuple(Step(i, "s", "cc") for i in range(num_steps)))


def test_statistics_count_prompt_steps_and_answer():
    rows = [StoredTrace("x", "t", trace("ppp", 1)), StoredTrace("y", "t", trace("p", 3))]
    found = summarise(rows)
    assert found.trace_ids == ("x", "y")
    assert found.stats == Stats(
        trace_count=2,
        avg_step_count=2.0,
        min_step_count=1,
        max_step_count=3,
        avg_total_chars=(3 + 2 + 1 + 1 + 6 + 1) / 2,
    )


def test_the_content_hash_is_of_rows_in_order_and_the_same_on_every_machine():
    rows = [StoredTrace("x", "t", trace("ppp", 1)), StoredTrace("y", "t", trace("p", 3))]
    digest = summarise(rows).content_hash
    assert digest == "b47071c3df15660fc86f25913b64dfb52f2ae0f935ea1a1f2c13a038c55bf39f"
    assert summarise([StoredTrace("other", "later", row.trace) for row in rows]).content_hash == digest
    assert summarise(rows[::-1]).content_hash != digest
    assert summarise([]).stats is None
