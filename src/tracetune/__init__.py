"""Tracetune: traces in, a measurably better model out.

The verbs of the command line as functions; each loads what it needs when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracetune.api.tinker_server import local_tinker
    from tracetune.app.benchmark import benchmark, compare_benchmarks
    from tracetune.app.datasets import (
        build_dataset,
        diff_datasets,
        export_dataset,
        list_datasets,
        open_dataset,
        register_evalset,
    )
    from tracetune.app.demo import demo
    from tracetune.app.distill import run_distill
    from tracetune.app.doctor import doctor
    from tracetune.app.evaluate import evaluate
    from tracetune.app.experiment_baseline import measure_baseline
    from tracetune.app.experiment_new import new_experiment
    from tracetune.app.export import export_model
    from tracetune.app.generate import generate
    from tracetune.app.grpo import run_grpo
    from tracetune.app.grpo_evaluate import evaluate_checkpoint
    from tracetune.app.ingest import ingest, make_traces
    from tracetune.app.plan import plan
    from tracetune.app.report import report
    from tracetune.app.reproduce import reproduce
    from tracetune.app.rlvr import run_rlvr
    from tracetune.app.score import score
    from tracetune.app.sft import run_sft
    from tracetune.app.split import split_file
    from tracetune.app.tag import tag_file, tag_problem
    from tracetune.config.compose import compose_grpo
    from tracetune.config.distill import load_distill_config
    from tracetune.config.resolve import load_sft_config
    from tracetune.config.rlvr import load_rlvr_config
    from tracetune.tasks.grading import grade

_HOMES = {
    "benchmark": "app.benchmark",
    "build_dataset": "app.datasets",
    "compare_benchmarks": "app.benchmark",
    "compose_grpo": "config.compose",
    "demo": "app.demo",
    "diff_datasets": "app.datasets",
    "doctor": "app.doctor",
    "evaluate": "app.evaluate",
    "evaluate_checkpoint": "app.grpo_evaluate",
    "export_dataset": "app.datasets",
    "export_model": "app.export",
    "generate": "app.generate",
    "grade": "tasks.grading",
    "ingest": "app.ingest",
    "list_datasets": "app.datasets",
    "local_tinker": "api.tinker_server",
    "load_distill_config": "config.distill",
    "load_rlvr_config": "config.rlvr",
    "load_sft_config": "config.resolve",
    "make_traces": "app.ingest",
    "measure_baseline": "app.experiment_baseline",
    "new_experiment": "app.experiment_new",
    "open_dataset": "app.datasets",
    "plan": "app.plan",
    "register_evalset": "app.datasets",
    "report": "app.report",
    "reproduce": "app.reproduce",
    "run_distill": "app.distill",
    "run_grpo": "app.grpo",
    "run_rlvr": "app.rlvr",
    "run_sft": "app.sft",
    "score": "app.score",
    "split_file": "app.split",
    "tag_file": "app.tag",
    "tag_problem": "app.tag",
}

__all__ = [
    "benchmark",
    "build_dataset",
    "compare_benchmarks",
    "compose_grpo",
    "demo",
    "diff_datasets",
    "doctor",
    "evaluate",
    "evaluate_checkpoint",
    "export_dataset",
    "export_model",
    "generate",
    "grade",
    "ingest",
    "list_datasets",
    "load_distill_config",
    "load_rlvr_config",
    "load_sft_config",
    "local_tinker",
    "make_traces",
    "measure_baseline",
    "new_experiment",
    "open_dataset",
    "plan",
    "register_evalset",
    "report",
    "reproduce",
    "run_distill",
    "run_grpo",
    "run_rlvr",
    "run_sft",
    "score",
    "split_file",
    "tag_file",
    "tag_problem",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tracetune' has no attribute {name!r}")
    return getattr(import_module(f"tracetune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
