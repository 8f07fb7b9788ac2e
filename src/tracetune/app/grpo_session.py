"""One session of one GRPO run: steps taken, rollouts and metrics logged, states saved, the manifest kept true.

A state is saved between batches only, so a run that is killed goes on from a whole batch.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jax.sharding import Mesh

from tracetune.app.backend_choice import backend_facts
from tracetune.app.grpo_pointer import elsewhere, write_pointer
from tracetune.app.grpo_problems import PromptSets
from tracetune.app.kept_session import KeptSession, due
from tracetune.app.manifest import (
    folder_hashes,
)
from tracetune.app.progress import Meter, Reporter
from tracetune.app.rollouts import drop_after, write_rollouts
from tracetune.app.runs import MetricsFile, RunFolder, read_metrics
from tracetune.app.stop import StopRequest, stop_requests
from tracetune.app.tinker_bill import spent, told_cost
from tracetune.app.trackers import Trackers
from tracetune.backends.local_policy import LocalPolicy
from tracetune.backends.protocol import PolicyBackend, PolicyMetrics
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.grpo import config_mapping, to_yaml
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.ids import utc_now
from tracetune.models.model import Model
from tracetune.models.served import ServedModel
from tracetune.tasks.reward_set import RewardSet
from tracetune.train.curriculum import Curriculum
from tracetune.train.grpo import GrpoInfo, Place, Recipe, train_grpo
from tracetune.train.health import onsets
from tracetune.train.prompts import PromptStream
from tracetune.train.validate import change_told, validate


class GrpoResult(NamedTuple):
    """How a run ended. `metrics` are those of its last logged step; `checkpoint` is the trained model. After an
    interruption `checkpoints` is what to go on with."""

    folder: Path
    status: Literal["finished", "interrupted", "already finished"]
    num_steps: int
    metrics: Mapping[str, float]
    checkpoint: Path
    signal_number: int | None = None
    checkpoints: Path | None = None


class Prepared(NamedTuple):
    """Everything a loop needs, checked and in memory. `service` trains where this machine does not."""

    model: Model | ServedModel
    prompts: PromptSets
    rewards: RewardSet
    num_steps: int
    curriculum: Curriculum | None = None
    mesh: Mesh | None = None
    service: TinkerService | None = None


class GrpoSession(KeptSession[GrpoResult]):
    """One session of one run: what is written when. Held by the process that holds the checkpoints' lock."""

    def __init__(
        self, config: GrpoConfig, folder: RunFolder, checkpoints: Path, prepared: Prepared, reporter: Reporter
    ) -> None:
        where = {"num_steps": prepared.num_steps, "checkpoints_path": str(checkpoints.resolve())}
        super().__init__(
            folder,
            checkpoints,
            reporter,
            settings=to_yaml(config),
            described=where | backend_facts(config),
            max_checkpoints=config.training.max_checkpoints_to_keep,
        )
        self.config, self.prepared = config, prepared

    def _open_manifest(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        manifest = super()._open_manifest(inputs)
        # After the manifest: checkpoints never belong to a folder that does not say what it is.
        write_pointer(self.checkpoints, self.folder.root)
        return manifest

    def _train(self) -> GrpoResult:
        prepared = self.prepared
        backend = self._open_backend()
        meta = backend.restore(self.checkpoints, warn=self.reporter.say)
        place = Place.restored(meta["place"]) if meta else Place()
        self.manifest["sessions"][-1]["from_step"] = place.step
        if meta:
            self.reporter.say(f"resumed after step {place.step}; this run is in {self.folder.root}")
        drop_after(self.folder.root, place.step)
        self.reporter.begin(prepared.num_steps, step=place.step)
        metrics = MetricsFile(self.folder.metrics, keep_bytes=meta["metrics_bytes"] if meta else 0)
        trackers = Trackers.open(
            self.folder.root,
            self.config.tracking,
            config_mapping(self.config),
            step=place.step,
            warn=self.reporter.say,
        )
        with stop_requests() as stop, closing(metrics), closing(trackers):
            place = self._steps(backend, place, metrics, trackers, stop=stop)
        if place.step < prepared.num_steps:
            return GrpoResult(
                self.folder.root, "interrupted", place.step, {}, self.folder.final, stop.signal_number, self.checkpoints
            )
        return self._finish(backend)

    def _open_backend(self) -> PolicyBackend:
        prepared, model = self.prepared, self.prepared.model
        if isinstance(model, ServedModel):
            from tracetune.backends.tinker_policy import TinkerPolicy

            assert prepared.service is not None, "a model that is served has a service"
            return TinkerPolicy(prepared.service, model, self.config, num_steps=prepared.num_steps)
        if self.config.backend == "tunix":
            from tracetune.backends.tunix_policy import TunixPolicy

            return TunixPolicy(model, self.config, num_steps=prepared.num_steps)
        return LocalPolicy(
            model,
            self.config,
            num_steps=prepared.num_steps,
            longest_prompt=prepared.prompts.longest,
            mesh=prepared.mesh,
        )

    def _steps(
        self, backend: PolicyBackend, place: Place, metrics: MetricsFile, trackers: Trackers, *, stop: StopRequest
    ) -> Place:
        """Take steps until the last or until asked to stop; a state is saved only between batches."""
        training, num_steps = self.config.training, self.prepared.num_steps
        meter, history = Meter(num_steps), read_metrics(self.folder.metrics)
        is_save_due = is_eval_due = False
        for info in train_grpo(self._recipe(backend), place):
            place, step = info.place, info.place.step
            meter.tick(sum(len(rollout.completion.tokens) for rollout in info.rollouts))
            if info.rollouts:
                write_rollouts(self.folder.root, step, info.rollouts)
            row = _metrics_row(info, meter) | spent(self.prepared.service)
            is_last = step == num_steps
            is_eval_due |= is_last or due(step, training.eval_interval_steps)
            if is_eval_due and info.is_whole:
                row |= self._validate(backend)
                is_eval_due = False
            metrics.append(row)
            trackers.log(step, {name: value for name, value in row.items() if isinstance(value, int | float)})
            self.reporter.step(step, _told(row, meter), logged=True)
            if info.told is not None:
                self.reporter.say(f"step {step}: {info.told}")
            history.append(row)
            for alarm in onsets(history):
                self.reporter.say(f"step {alarm.step}: {alarm.text}")
            is_save_due |= is_last or due(step, training.save_interval_steps) or stop.signal_number is not None
            if is_save_due and info.is_whole:
                self._save(backend, step, {"place": list(place)}, metrics)
                is_save_due = False
                if stop.signal_number is not None:
                    break
        return place

    def _recipe(self, backend: PolicyBackend) -> Recipe:
        return Recipe(
            backend=backend,
            stream=PromptStream(self.prepared.prompts.train, seed=self.config.seed),
            score=self.prepared.rewards.score,
            settings=self.config.grpo,
            num_prompts=self.config.training.micro_batch_size,
            num_steps=self.prepared.num_steps,
            seed=self.config.seed,
            curriculum=self.prepared.curriculum,
            elsewhere=elsewhere(self.checkpoints, self.folder.root),
        )

    def _validate(self, backend: PolicyBackend) -> dict[str, float]:
        prompts = self.prepared.prompts.validation
        if not prompts:
            return {}
        return validate(backend, prompts, seed=self.config.seed, tagged=self.config.prompt.asks_for_tags).metrics()

    def _finish(self, backend: PolicyBackend) -> GrpoResult:
        backend.export(self.folder.final)
        rows = read_metrics(self.folder.metrics)
        result = rows[-1]
        if told := change_told(rows):
            self.reporter.say(told)
        self.manifest |= {"result": result, "files": folder_hashes(self.folder.final)}
        return GrpoResult(self.folder.root, "finished", result["step"], result, self.folder.final)


def _metrics_row(info: GrpoInfo, meter: Meter) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    metrics = info.metrics
    return {
        "step": info.place.step,
        "loss": metrics.loss,
        **info.rewards,
        "kl": metrics.kl,
        "clip_share": metrics.clip_share,
        **_gap(metrics),
        **({} if metrics.grad_norm is None else {"grad_norm": metrics.grad_norm}),
        "learning_rate": metrics.learning_rate,
        "tokens": info.place.tokens,
        "targets": metrics.num_targets,
        **{f"{name}_seconds": round(seconds, 3) for name, seconds in info.timing._asdict().items()},
        "tokens_per_second": round(meter.tokens_per_second, 1),
        "timestamp": utc_now(),
    }


def _gap(metrics: PolicyMetrics) -> dict[str, float]:
    """How far sampler and trainer are apart; later passes over a batch measure the policy's own way instead."""
    if metrics.gap_mean is None or metrics.gap_max is None:
        return {}
    return {"sampler_gap_mean": metrics.gap_mean, "sampler_gap_max": metrics.gap_max}


def _told(row: Mapping[str, Any], meter: Meter) -> str:
    accuracy = f" · validation {row['validation_accuracy']:.1%}" if "validation_accuracy" in row else ""
    return (
        f"reward {row['reward_mean']:.3f} ± {row['reward_std']:.3f}{accuracy} · "
        f"length {row['completion_length_mean']:.0f} · KL {row['kl']:.4f} · "
        f"{row['rollout_seconds']:.1f} s sampling, {row['update_seconds'] + row['reference_seconds']:.1f} s learning · "
        f"ETA {meter.eta(row['step'])}{told_cost(row)}"
    )
