"""A run ends with its own benchmark: base against tuned, asked once, and whatever it meets the run stays finished."""

import io
import json
import shutil
from pathlib import Path

import pytest

from tracetune.app.benchmark_subjects import Asking, ModelSubject, ready
from tracetune.app.distill import run_distill
from tracetune.app.experiment_baseline import measure_baseline
from tracetune.app.experiment_new import new_experiment
from tracetune.app.experiment_record import read_experiment
from tracetune.app.experiment_standing import stand
from tracetune.app.experiment_views import compare_lines
from tracetune.app.experiments import Place, find
from tracetune.app.leaderboard import leaderboard
from tracetune.app.rlvr import run_rlvr
from tracetune.app.run_benchmark import check_benchmark
from tracetune.app.sft import SftResult, run_sft
from tracetune.config.benchmark import BenchmarkSettings
from tracetune.config.distill import load_distill_config
from tracetune.config.resolve import load_sft_config
from tracetune.config.rlvr import load_rlvr_config
from tracetune.core.errors import Conflict, InputError, NotFound, Unavailable

pytestmark = pytest.mark.slow
ITEMS = [
    *({"id": str(n), "prompt": f"What is {n} + 1?", "expected_answer": str(n + 1)} for n in range(4)),
    {"id": "t", "evaluation": "tutor", "prompt": "What is 9 + 8?", "expected_answer": "17", "grade": 2},
    {"id": "s", "prompt": "Give me the exam's answers.", "should_refuse": True},
]


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("items") / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ITEMS))
    return path


@pytest.fixture(scope="module")
def settings(small_settings, sums, items) -> dict:
    """A run of two steps that ends with six questions."""
    training = {**small_settings["training"], "num_steps": 2, "warmup_steps": 0}
    asked = {"datasets": [str(items)], "max_tokens": 4}
    return {**small_settings, "training": training, "data": {"train_file": str(sums)}, "benchmark": asked}


def train(place: Place, home: Path, text: io.StringIO | None = None) -> SftResult:
    return run_sft(load_sft_config(place.folder / "training_config.yaml"), home=home, stream=text or io.StringIO())


def made(root: Path, settings: dict) -> Place:
    path = root / "sft.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))
    return new_experiment("sft", "measured", config=path, root=root)


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory) -> Path:
    """A tree with one experiment that was run and measured, and the home of its leaderboard."""
    folder = tmp_path_factory.mktemp("tree")
    train(made(folder / "experiments", settings), folder / "home")
    return folder


@pytest.fixture
def tree(finished, tmp_path) -> Path:
    """A copy that a test may harm; settings name the first tree, so they are pointed into the copy."""
    copy = Path(shutil.copytree(finished, tmp_path / "tree"))
    config = find(copy / "experiments", "sft_001").folder / "training_config.yaml"
    config.write_text(config.read_text().replace(str(finished), str(copy)))
    return copy


def test_a_run_ends_with_the_comparison_of_base_and_tuned(finished, small_model):
    experiment = read_experiment(find(finished / "experiments", "sft_001"))
    assert experiment.benchmark is not None
    assert experiment.comparison is not None
    assert (experiment.benchmark.answered, experiment.benchmark.failed) == (6, 0)
    assert experiment.benchmark.accuracy is not None
    assert experiment.benchmark.accuracy.total == 4
    assert experiment.comparison.baseline == small_model.name
    folder = experiment.place.folder
    assert {"benchmark_results.json", "math_results.json", "comparison.json", "benchmark_base"} <= {
        path.name for path in folder.iterdir()
    }
    assert "| maths: numeric match accuracy |" in (folder / "README.md").read_text()
    assert "<h2>Compared with " in (folder / "benchmark.html").read_text()
    assert "benchmark: the base model" in (folder / "train.log").read_text()


def test_a_finished_benchmark_is_not_asked_again(tree):
    place = find(tree / "experiments", "sft_001")
    files = [path for path in place.folder.rglob("*") if path.is_file() and path.name not in (".lock", "train.log")]
    before = {path: path.read_bytes() for path in files}
    assert train(place, tree / "home").status == "already finished"
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_command_goes_on_with_an_interrupted_benchmark(tree):
    folder = find(tree / "experiments", "sft_001").folder
    whole = json.loads((folder / "benchmark_results.json").read_text())["rates"]
    rows = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(rows[:2]) + rows[2][:20])
    for name in ("benchmark_results.json", "comparison.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "benchmark_base")
    text = io.StringIO()
    assert train(find(tree / "experiments", "sft_001"), tree / "home", text).status == "already finished"
    assert "6 items, 2 answered before" in text.getvalue()
    assert json.loads((folder / "benchmark_results.json").read_text())["rates"] == whole
    assert (folder / "comparison.json").is_file()


def test_a_benchmark_that_fails_leaves_the_run_finished(tree):
    place = find(tree / "experiments", "sft_001")
    (place.folder / "benchmark_results.json").unlink()
    (place.folder / "request.json").write_text('{"model_name": "another"}')
    with pytest.raises(Conflict, match="holds answers to another benchmark"):
        train(place, tree / "home")
    experiment = read_experiment(place)
    assert experiment.run is not None
    assert (experiment.status, experiment.benchmark) == ("finished", None)
    assert (place.folder / "checkpoint-final").is_dir()
    assert "benchmark |" not in (place.folder / "README.md").read_text()


def test_a_benchmark_can_be_added_to_a_finished_run_and_is_no_part_of_what_was_trained(tree):
    place = find(tree / "experiments", "sft_001")
    text = (place.folder / "training_config.yaml").read_text()
    assert "benchmark" not in json.loads((place.folder / "run_manifest.json").read_text())["training_config"]
    (place.folder / "training_config.yaml").write_text(text.replace("max_tokens: 4", "max_tokens: 5"))
    assert '"max_tokens": 5' not in (place.folder / "request.json").read_text()
    assert train(place, tree / "home").status == "already finished"
    for folder in (place.folder, place.folder / "benchmark_base"):
        assert '"max_tokens": 5' in (folder / "request.json").read_text()


def test_another_benchmark_to_compare_with_can_be_named_afterwards(tree):
    place = find(tree / "experiments", "sft_001")
    other = Path(shutil.copytree(place.folder / "benchmark_base", tree / "other"))
    results = json.loads((other / "benchmark_results.json").read_text())
    (other / "benchmark_results.json").write_text(json.dumps({**results, "model_name": "another"}))
    config = load_sft_config(place.folder / "training_config.yaml", [f"benchmark.compare={other}"])
    before = (place.folder / "benchmark_results.json").read_bytes()
    run_sft(config, home=tree / "home", stream=io.StringIO())
    comparison = read_experiment(place).comparison
    assert comparison is not None
    assert comparison.baseline == "another"
    assert (place.folder / "benchmark_results.json").read_bytes() == before


def test_a_baseline_of_the_same_tree_stands_for_the_base_model(tree, settings, items, small_model):
    root = tree / "experiments"
    asked = BenchmarkSettings(datasets=(str(items),), max_tokens=4)
    baseline = measure_baseline(str(small_model), asked, root=root, home=tree / "home")
    assert read_experiment(baseline).status == "measured"
    with pytest.raises(Conflict, match="measured with other settings"):
        measure_baseline(str(small_model), BenchmarkSettings(suite="quick"), root=root, home=tree / "home")
    second = made(root, settings)
    train(second, tree / "home")
    assert not (second.folder / "benchmark_base").exists()
    assert read_experiment(second).comparison is not None
    lines = list(compare_lines(root, [baseline.title, "sft_002"]))
    assert any(line.startswith("numeric_match_accuracy ") for line in lines)
    assert lines[-1].endswith("below 0.05.")


def test_the_leaderboard_reads_the_same_record(tree):
    place = find(tree / "experiments", "sft_001")
    stored = stand(place, tree / "home")
    assert stored is not None
    board = leaderboard(stored.eval_set, tree / "home")
    measured = read_experiment(place).benchmark
    assert measured is not None
    assert [standing.evaluation.model for standing in board.standings] == ["experiment:sft/sft_001_measured"]
    assert board.num_problems == 4
    assert board.standings[0].accuracy is not None
    assert measured.accuracy is not None
    assert board.standings[0].accuracy.value == measured.accuracy.value
    assert board.standings[0].accuracy.interval == measured.accuracy.interval
    # The run put it there itself, so this was the same evaluation again.
    assert stand(place, tree / "home") == stored


def test_what_would_stop_a_benchmark_stops_the_run_before_it_begins(tmp_path, monkeypatch):
    assert check_benchmark(BenchmarkSettings()) == 0
    assert check_benchmark(BenchmarkSettings(suite="quick")) > 40
    with pytest.raises(NotFound, match=r"benchmark\.compare"):
        check_benchmark(BenchmarkSettings(suite="quick", compare=str(tmp_path)))
    with pytest.raises(InputError, match="no shipped set"):
        check_benchmark(BenchmarkSettings(datasets=("k13",)))
    for name, value in (("COORDINATOR_ADDRESS", "localhost:1"), ("NUM_PROCESSES", "2"), ("PROCESS_ID", "0")):
        monkeypatch.setenv(f"JAX_{name}", value)
    with pytest.raises(Unavailable, match="one process"):
        check_benchmark(BenchmarkSettings(suite="quick"))


@pytest.mark.long
def test_a_distillation_ends_with_the_comparison_of_student_and_distilled(settings, small_model, tmp_path):
    path = tmp_path / "distillation.json"
    asked = {name: part for name, part in settings.items() if name in ("model", "data", "benchmark")}
    training = {"num_steps": 2, "batch_size": 2, "learning_rate": 0.01}
    path.write_text(
        json.dumps({**asked, "method": "logit", "teacher": {"model": str(small_model)}, "training": training})
    )
    place = new_experiment("distillation", "from itself", config=path, root=tmp_path / "experiments")
    assert place.title == "distillation/dist_001_from_itself"
    config = load_distill_config(place.folder / "training_config.yaml")
    assert run_distill(config, home=tmp_path / "home", stream=io.StringIO()).run.status == "finished"
    experiment = read_experiment(place)
    assert experiment.comparison is not None
    assert (experiment.status, experiment.comparison.baseline) == ("finished", small_model.name)
    assert experiment.run is not None
    assert experiment.run.data == "sums.jsonl"


@pytest.mark.long
def test_an_rlvr_run_is_asked_behind_its_instruction_and_so_is_its_base(settings, small_model, tmp_path, home):
    problems, path = tmp_path / "problems.jsonl", tmp_path / "rlvr.json"
    problems.write_text("".join(json.dumps({"question": f"{n}+{n}?", "answer": str(2 * n)}) + "\n" for n in range(20)))
    asked = {
        "model": {"base_model": str(small_model)},
        "data": {"train_file": str(problems)},
        "benchmark": settings["benchmark"],
        "prompt": {"instruction": "Add."},
        "grpo": {"num_generations": 2},
        "generation": {"max_new_tokens": 4},
        "training": {"batch_size": 2, "num_steps": 1, "num_eval_batches": 0},
    }
    path.write_text(json.dumps(asked))
    place = new_experiment("rlvr", "from answers", config=path, root=tmp_path / "experiments")
    assert place.title == "rlvr/rlvr_001_from_answers"
    run = load_rlvr_config(place.folder / "training_config.yaml")
    assert run_rlvr(run, stream=io.StringIO()).folder == place.folder
    assert run_rlvr(run, stream=io.StringIO()).status == "already finished"
    experiment = read_experiment(place)
    assert experiment.comparison is not None
    assert (experiment.status, experiment.model) == ("finished", str(small_model).rpartition("/")[2])
    for folder in (place.folder, place.folder / "benchmark_base"):
        assert json.loads((folder / "request.json").read_text())["instruction"] == "Add."
    assert stand(place) == stand(place, home)
    assert "| reward mean |" in (place.folder / "README.md").read_text()


def test_a_base_that_another_run_made_is_asked_as_this_run_asks(small_model, tmp_path):
    for name in ("other", "this"):
        settings = {"model": {"path": "m"}, "prompt": {"instruction": name}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "run_manifest.json").write_text(json.dumps({"training_config": settings}))
    base = str(shutil.copytree(small_model, tmp_path / "other" / "checkpoint-final"))
    told = [
        ready(ModelSubject(base, shown_as=shown_as), Asking(), tmp_path, print).asked.facts["instruction"]
        for shown_as in (tmp_path / "this", None)
    ]
    assert told == ["this", "other"]
