"""A baseline: the benchmark of a model that nothing was done to, for experiments to be held against."""

from pathlib import Path

from omegaconf import OmegaConf

from tracetune.app.benchmark import ModelSubject, benchmark
from tracetune.app.experiment_readme import write_readme
from tracetune.app.experiment_record import read_experiment
from tracetune.app.experiment_standing import stand
from tracetune.app.experiments import CONFIG_FILE, ROOT, Place, model_slug, write_new
from tracetune.app.progress import Reporter
from tracetune.config.benchmark import BenchmarkSettings, benchmark_mapping
from tracetune.config.resolve import read_yaml
from tracetune.core.errors import Conflict, InputError


def measure_baseline(
    model: str,
    settings: BenchmarkSettings,
    *,
    root: Path = ROOT,
    home: Path | None = None,
    reporter: Reporter | None = None,
) -> Place:
    """Benchmark a model into `baseline/MODEL`; the same again goes on where it stopped, and is put on the leaderboard.

    Raises Conflict when that folder was measured otherwise, InputError when not one answer was obtained.
    """
    name = model_slug(model)
    place = Place("baseline", name, root / "baseline" / name)
    asked = {"model": model, "benchmark": benchmark_mapping(settings)}
    if not place.folder.is_dir():
        write_new(place, f"{model} as it is", {CONFIG_FILE: OmegaConf.to_yaml(OmegaConf.create(asked))})
    elif (place.folder / CONFIG_FILE).is_file() and read_yaml(place.folder / CONFIG_FILE) != asked:
        raise Conflict(f"{place.folder}: was measured with other settings, see its {CONFIG_FILE}; use those, or --root")
    outcome = benchmark(
        ModelSubject(model),
        output=place.folder,
        suite=settings.suite,
        datasets=settings.datasets,
        max_tokens=settings.max_tokens,
        model_name=model,
        reporter=reporter,
    )
    write_readme(read_experiment(place))
    if outcome.all_failed:
        raise InputError(f"{place.folder}: not one answer was obtained; see {place.folder / 'answers.jsonl'}")
    stand(place, home)
    return place
