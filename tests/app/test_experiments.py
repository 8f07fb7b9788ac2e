"""The tree of experiments: numbers are given once, READMEs follow the record, notes stay, bad records are named."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tracetune.app.experiment_facts import Experiment
from tracetune.app.experiment_new import new_experiment
from tracetune.app.experiment_readme import NOTES, findings, kept_readme, write_readme
from tracetune.app.experiment_record import read_experiment
from tracetune.app.experiment_views import compare_lines, list_lines
from tracetune.app.experiments import Place, claim, find, place_of, places
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError, NotFound

CONFIG = """\
# What is tried here.
model:
  base_model: tiny      # small
training:
  output_dir: elsewhere
  num_epochs: 1
"""


def manifest(**changes) -> dict:
    return {
        "status": "finished",
        "exit_reason": None,
        "seed": 7,
        "num_steps": 20,
        "dataset_content_hash": "ab12" * 16,
        "training_config": {"model": {"name": "tiny"}, "optimizer": {"learning_rate": 2e-5}},
        "data": {"kind": "file", "path": "/srv/secret/train.jsonl"},
        "result": {"steps": 20, "loss": 1.25, "tokens": 4000},
        "durations": {"total_seconds": 12.5},
        "device": {"kind": "cpu", "count": 1},
        "ended_at": "2026-01-02T03:04:05.678+00:00",
    } | changes


def ran(place: Place, **changes) -> Place:
    """The files that a run leaves."""
    (place.folder / "run_manifest.json").write_text(json.dumps(manifest(**changes)))
    rows = [{"step": 1, "loss": 3.5, "tokens": 200}, {"step": 20, "loss": 1.25, "tokens": 4000}]
    (place.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def measured(place: Place, *regressions: dict) -> Place:
    """The files that a benchmark leaves, with a comparison."""
    rates = {"numeric_match_accuracy": {"value": 0.5, "count": 20, "total": 40, "interval": [0.35, 0.65]}}
    sections = {"math_accuracy": {"numeric_match_accuracy": 0.5}, "safety": {"false_refusal_rate": 0.25}}
    results = {"suite": "quick", "answered": 40, "failed": 2, "evaluations": sections, "rates": rates}
    row = {"metric": "numeric_match_accuracy", "baseline": 0.25, "current": 0.5, "interval": [0.1, 0.4]}
    compared = {"baseline": {"model_name": "/models/base"}, "improvements": [row, 7], "unchanged": None}
    (place.folder / "benchmark_results.json").write_text(json.dumps(results))
    (place.folder / "comparison.json").write_text(json.dumps({**compared, "regressions": regressions}))
    return place


@pytest.fixture
def root(tmp_path):
    return tmp_path / "experiments"


def made(root, description="an idea") -> Place:
    return new_experiment("sft", description, root=root)


def readme(place: Place) -> str:
    return (place.folder / "README.md").read_text()


def record(place: Place) -> Experiment:
    return read_experiment(place)


def test_experiments_are_numbered_and_named_by_their_description(root):
    assert [made(root, text).name for text in ("Higher LR: 2e-5!", "Höher")] == [
        "sft_001_higher_lr_2e_5",
        "sft_002_h_her",
    ]
    assert {path.name for path in (root / "sft" / "sft_002_h_her").iterdir()} == {
        "README.md",
        "experiment.json",
        "training_config.yaml",
    }
    with pytest.raises(InputError, match="letter or digit"):
        made(root, "!!")
    assert made(root).name == "sft_003_an_idea"


def test_many_at_once_get_numbers_of_their_own(root):
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda n: claim(root, "sft", f"idea {n}").name, range(64)))
    assert sorted(name[:7] for name in names) == [f"sft_{n:03d}" for n in range(1, 65)]


def test_a_number_is_never_used_again(root):
    import shutil

    made(root)
    shutil.rmtree(made(root).folder)
    assert made(root).name == "sft_003_an_idea"
    # In a clone the claims of deleted folders are gone; the folders that are there still count.
    shutil.rmtree(root / "sft" / ".numbers")
    (root / "sft" / "sft_1041_by_hand").mkdir()
    assert made(root).name == "sft_1042_an_idea"
    assert [place.name[:8] for place in places(root)] == ["sft_001_", "sft_003_", "sft_1041", "sft_1042"]


def test_settings_are_copied_with_their_comments_and_point_into_the_folder(root, tmp_path):
    source = tmp_path / "sft.yaml"
    source.write_text(CONFIG)
    place = new_experiment("sft", "copied", config=source, root=root)
    copied = (place.folder / "training_config.yaml").read_text()
    assert copied == CONFIG.replace("elsewhere", str(place.folder))
    assert load_sft_config(place.folder / "training_config.yaml").output.folder == str(place.folder)


@pytest.mark.parametrize(
    "text",
    ["model: tiny\nsteps: 5\n", "output: {folder: there}\n", "training: {output_dir: a, num_steps: 3}\n", None],
)
def test_every_way_of_naming_the_run_folder_is_pointed_into_it(root, tmp_path, text):
    source = tmp_path / "settings.yaml"
    source.write_text(text or "")
    place = new_experiment("sft", "pointed", config=source if text else None, model="qwen3:8b", root=root)
    config = load_sft_config(place.folder / "training_config.yaml")
    assert (config.output.folder, config.model.name) == (str(place.folder), "qwen3:8b")


def test_wrong_settings_make_nothing_and_use_no_number(root, tmp_path):
    source = tmp_path / "sft.yaml"
    source.write_text("training: {batch_sise: 4}\nbackend: gpu\n")
    with pytest.raises(InputError, match=r"(?s)did you mean training.batch_size.*backend: must be"):
        new_experiment("sft", "wrong", config=source, root=root)
    with pytest.raises(InputError, match="kind: must be one of"):
        new_experiment("stf", "wrong", root=root)
    assert not root.exists()


def test_the_findings_are_the_runs_own(root):
    place = ran(made(root))
    told = dict(findings(record(place)))
    assert told == {
        "state": "finished",
        "model": "tiny",
        "data": "train.jsonl, rows ab12ab12ab12",
        "seed": "7",
        "steps": "20",
        "tokens": "4,000",
        "loss": "3.5 → 1.25",
        "took": "12.5 s on cpu × 1",
        "ended": "2026-01-02 03:04:05 UTC",
    }
    assert "| loss | 3.5 → 1.25 |" in write_readme(record(place))
    assert "/srv/secret" not in readme(place)


def test_the_same_record_gives_the_same_bytes_and_another_does_not(root):
    place = ran(made(root))
    first = write_readme(record(place))
    assert write_readme(record(place)) == first == readme(place)
    assert write_readme(record(ran(place, seed=8))) != first


def test_notes_survive_and_a_page_without_the_marker_is_kept_whole(root):
    place = made(root)
    (place.folder / "README.md").write_text(readme(place) + "\nIt *works*.\n\n")
    before = readme(place)
    write_readme(record(ran(place)))
    assert readme(place) != before
    assert readme(place).partition(NOTES)[2] == before.partition(NOTES)[2]
    (place.folder / "README.md").write_text("# Mine\n")
    for _ in range(2):
        write_readme(record(place))
    assert readme(place).endswith(f"{NOTES}\n\n# Mine\n")
    assert readme(place).count("# Mine") == 1


def test_text_of_a_record_is_no_markup(root):
    place = made(root, "a | b <script>\n# c")
    assert "a \\| b &lt;script&gt; # c\n" in readme(place)


def test_a_run_leaves_the_readme_up_to_date_also_when_it_fails(root, tmp_path):
    place = made(root)
    ran(place, status="failed", exit_reason="Diverged: loss nan")
    with pytest.raises(ZeroDivisionError), kept_readme(place.folder):
        raise ZeroDivisionError
    assert "| state | failed: Diverged: loss nan |" in readme(place)
    with kept_readme(tmp_path):
        pass
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("run_manifest.json", b"{"),
        ("run_manifest.json", b"[]"),
        ("run_manifest.json", b'{"seed": NaN}'),
        ("metrics.jsonl", b"x\n"),
        ("experiment.json", b"\xff"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(root, name, data):
    place, other = ran(made(root)), ran(made(root, "other"))
    (place.folder / name).write_bytes(data)
    with pytest.raises(InputError, match=f"sft/sft_001_an_idea/{name}: "):
        record(place)
    lines = list(list_lines(root))
    assert "unreadable" in lines[1]
    assert lines[2].split()[:5] == ["sft/sft_002_other", "finished", "tiny", "ab12ab12", "20"]
    assert lines[3].startswith(f"sft/sft_001_an_idea/{name}: ")
    assert record(other).run is not None


def test_values_of_another_kind_are_told_as_nothing(root):
    odd = {"status": 3, "seed": "7", "num_steps": [], "training_config": [], "data": 1, "device": None, "result": "x"}
    run = record(ran(made(root), **odd)).run
    assert run is not None
    assert (run.status, run.seed, run.model, run.data, run.device, run.steps) == ("failed", None, None, None, None, 20)


def test_a_benchmark_and_its_comparison_join_the_findings(root):
    place = ran(made(root))
    worse = {"metric": "false_refusal_rate", "baseline": 0.0, "current": 0.25}
    for regressions, verdict in (((), "improved"), ((worse,), "mixed")):
        measured(place, *regressions)
        told = dict(findings(record(place)))
        assert told["verdict"] == f"{verdict} against base"
        assert told["benchmark"] == "quick, 40 answers, 2 failed"
        assert told["maths accuracy"] == "50.0 % (35.0 to 65.0 %, n = 40)"
    page = write_readme(record(place))
    assert (
        "| maths: numeric match accuracy | 50.0 % (35.0 to 65.0 %, n = 40) | 25.0 % | +25.0 (+10.0 to +40.0) | better |"
        in page
    )
    assert "| safety: false refusal rate | 25.0 % | 0.0 % | +25.0 | worse |" in page
    assert "+25.0 (+10.0 to +40.0)  mixed" in list(list_lines(root))[1]


def test_experiments_that_were_not_run_are_compared_by_their_settings(root):
    for rate in ("1e-3", "2e-3"):
        place = made(root)
        path = place.folder / "training_config.yaml"
        path.write_text(path.read_text().replace("learning_rate: 1.0e-05", f"learning_rate: {rate}"))
    lines = list(compare_lines(root, ["sft_001", "sft_002"]))
    assert [line.split() for line in lines[2:-2]] == [["optimizer.learning_rate", "0.001", "0.002"]]


def test_an_experiment_is_found_by_any_of_its_names(root):
    first, second = made(root), made(root, "an idea too")
    for name in ("sft_001", "sft_001_an_idea", "sft/sft_001_an_idea", str(first.folder), f"{first.folder}/"):
        assert find(root, name) == first
    assert place_of(root, "sft", second.name) == second
    with pytest.raises(NotFound, match="experiment list"):
        find(root, "sft_00")
    (root / "rlvr" / first.name).mkdir(parents=True)
    with pytest.raises(InputError, match="several experiments"):
        find(root, "sft_001_an_idea")


@pytest.mark.parametrize("name", ["..", ".numbers", "a/b", "sft_009_none", "", "x" * 300])
def test_no_other_folder_is_an_experiment(root, name):
    made(root)
    with pytest.raises(NotFound):
        place_of(root, "sft", name)
    with pytest.raises(NotFound):
        place_of(root, "..", "sft_001_an_idea")


def test_a_comparison_begins_with_what_was_asked_differently(root):
    ran(made(root))
    other = {"model": {"name": "tiny"}, "optimizer": {"learning_rate": 1e-4}}
    ran(made(root, "faster"), training_config=other)
    lines = list(compare_lines(root, ["sft_001", "sft_002"]))
    assert lines[0] == "what was asked differently"
    assert lines[2].split() == ["optimizer.learning_rate", "2e-05", "0.0001"]
    assert lines[3:] == ["", "sft_001_an_idea → sft_002_faster: no benchmark of sft_001_an_idea, sft_002_faster"]
    with pytest.raises(InputError, match="two experiments or more"):
        list(compare_lines(root, ["sft_001", "sft_001"]))
