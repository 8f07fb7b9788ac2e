"""The benchmark that a run ends with: the trained model, its base where no other benchmark is named, and the change.

The run is finished before it begins and stays so whatever happens here; the same command again goes on with it.
"""

from pathlib import Path
from typing import TextIO

from tracetune.app.benchmark import ModelSubject, benchmark, compare_benchmarks, write_page
from tracetune.app.benchmark_files import RESULTS, read_json
from tracetune.app.benchmark_results import items_hash
from tracetune.app.evaluate import BASE, Prompting, prompting_of
from tracetune.app.experiment_standing import stand
from tracetune.app.experiments import model_slug, place_of_folder, tree_of
from tracetune.app.progress import Reporter
from tracetune.app.runs import RunFolder, hold_run, read_manifest
from tracetune.config.benchmark import BenchmarkSettings
from tracetune.core.errors import InputError, NotFound, Unavailable
from tracetune.engine import hosts
from tracetune.tasks.benchmark_sets import benchmark_items

BASE_FOLDER = "benchmark_base"


def check_benchmark(settings: BenchmarkSettings) -> int:
    """How many items a run will end with; raises what would stop the benchmark, before anything is trained."""
    if not settings.is_asked:
        return 0
    if hosts.find_seat() is not None:
        raise Unavailable(
            "benchmark: runs in one process, not in several; set benchmark: null, and afterwards let "
            "`tracetune benchmark` measure the run's checkpoint"
        )
    if settings.compare is not None and not _results_of(Path(settings.compare)).is_file():
        raise NotFound(
            f"benchmark.compare: {settings.compare}: no such file; give the {RESULTS} of a finished benchmark"
        )
    return len(benchmark_items(settings.suite, settings.datasets))


def end_with_benchmark(
    folder: RunFolder, settings: BenchmarkSettings, base: str, out: TextIO, home: Path | None = None
) -> None:
    """Measure the trained model of a finished run, and compare; what was answered before is not asked again.

    `base` is the model that the run started from. Raises what the benchmark raises; InputError when not one answer
    was obtained.
    """
    if not settings.is_asked:
        return
    place = place_of_folder(folder.root)
    with hold_run(folder.root), Reporter(out, log=folder.log) as reporter:
        if not _answers_all(folder.root, settings):
            reporter.say("benchmark: the trained model answers")
            called = place.name if place else folder.root.name
            _measure(ModelSubject(str(folder.final)), folder.root, settings, reporter, model_name=called)
        comparison = compare_benchmarks(_before(folder, settings, base, reporter), folder.root, folder.root)
        write_page(folder.root, comparison)
        compared = comparison.numbers
        reporter.say(
            f"benchmark: {len(compared['improvements'])} better, {len(compared['regressions'])} worse, "
            f"{len(compared['unchanged'])} not told apart from {compared['baseline']['model_name']}"
        )
    if place is not None:
        stand(place, home)


def _before(folder: RunFolder, settings: BenchmarkSettings, base: str, reporter: Reporter) -> Path:
    """The benchmark to compare with: the one that is named, the tree's baseline, or the base model's own, asked as the
    run asks."""
    known = Path(settings.compare) if settings.compare else _known_baseline(folder, base, settings)
    if known is not None:
        return known
    own = folder.root / BASE_FOLDER
    if not _answers_all(own, settings):
        reporter.say(f"benchmark: the base model {base} answers")
        _measure(ModelSubject(base, shown_as=folder.root), own, settings, reporter, model_name=base)
    return own


def _measure(
    subject: ModelSubject, output: Path, settings: BenchmarkSettings, reporter: Reporter, *, model_name: str
) -> None:
    outcome = benchmark(
        subject,
        output=output,
        suite=settings.suite,
        datasets=settings.datasets,
        max_tokens=settings.max_tokens,
        model_name=model_name,
        anew=True,
        reporter=reporter,
    )
    if outcome.all_failed:
        raise InputError(f"{output}: benchmark: not one answer was obtained; the run itself is finished and whole")


def _answers_all(root: Path, settings: BenchmarkSettings) -> bool:
    """Whether a finished benchmark has an answer to everything that is asked."""
    if not (root / RESULTS).is_file():
        return False
    found = read_json(root / RESULTS)
    asked = found.get("asked")
    return (
        found.get("failed") == 0
        and isinstance(asked, dict)
        and asked.get("max_tokens") == settings.max_tokens
        and found.get("items_hash") == items_hash(benchmark_items(settings.suite, settings.datasets))
    )


def _known_baseline(folder: RunFolder, base: str, settings: BenchmarkSettings) -> Path | None:
    """The baseline of the same tree, where it is this very model, asked the same and shown it in the same way."""
    place, manifest = place_of_folder(folder.root), read_manifest(folder.manifest) or {}
    prompting = prompting_of(BASE, folder.root / RESULTS, say=lambda _: None)
    if place is None or prompting != Prompting(prompting.base_model):
        return None
    known = tree_of(place) / "baseline" / model_slug(base)
    if not _answers_all(known, settings):
        return None
    is_same = read_json(known / RESULTS)["asked"].get("model_fingerprint") == manifest.get("base_model_hash")
    return known if is_same else None


def _results_of(path: Path) -> Path:
    return path / RESULTS if path.is_dir() else path
