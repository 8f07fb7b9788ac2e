"""What both Tinker backends share: an adapter that a service holds, its optimizer steps, where it is saved, its export.

The service keeps a snapshot's weights and optimizer state for `KEEP_SECONDS`; the run's folder holds where they are,
the number of steps and what was spent. A step is submitted whole before any of it is waited for.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.backends.tinker_export import export_adapter
from tracetune.backends.tinker_sampling import Sampler
from tracetune.backends.tinker_service import TinkerService, Usage
from tracetune.backends.tinker_settings import ATTENTION, MLP
from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.engine.checkpoint import latest_checkpoint, save_checkpoint
from tracetune.engine.optimizer import make_schedule
from tracetune.models.served import ServedModel

# How long the service keeps a snapshot: a run that was stopped must go on within a week.
KEEP_SECONDS = 7 * 24 * 3600
# What services call the norm of the gradient before it was clipped.
_NORMS = frozenset({"grad_norm", "unclipped_grad_l2"})


class Passage(NamedTuple):
    """One sequence to learn from: position t reads `tokens[t]` and predicts `targets[t]`, or one of the K candidates
    there when targets are [T, K]."""

    tokens: np.ndarray
    targets: np.ndarray


class Passed(NamedTuple):
    """What a pass told: log-probs in nats of the shape of every sequence's targets, and after a step the gradient's
    norm, None where the service does not tell it."""

    logprobs: list[np.ndarray]
    grad_norm: float | None = None


class TinkerState:
    """An adapter that is trained on a service; it is made there when it is first needed."""

    def __init__(
        self,
        service: TinkerService,
        model: ServedModel,
        lora: LoraSettings,
        optimizer: OptimizerSettings,
        *,
        seed: int,
        num_steps: int,
    ) -> None:
        self.service, self.model, self.num_taken = service, model, 0
        self._lora, self._optimizer, self._seed = lora, optimizer, seed
        self._schedule = make_schedule(optimizer, num_steps)
        self._client: Any = None
        self._drawer: Any = None
        self._drawer_step = -1

    @property
    def client(self) -> Any:
        """The SDK's training client."""
        if self._client is None:
            modules = set(self._lora.target_modules)
            self._client = self.service.ask(
                "a new adapter",
                lambda clients: clients.create_lora_training_client(
                    base_model=self.service.offer.name,
                    rank=self._lora.r,
                    seed=self._seed,
                    train_attn=modules >= ATTENTION,
                    train_mlp=modules >= MLP,
                    train_unembed=False,
                ),
            )
        return self._client

    @property
    def sampler(self) -> Sampler:
        """Draws by the weights as they are, of which the service then keeps a snapshot."""
        if self._drawer is None or self._drawer_step != self.num_taken:
            client = self.client
            self._drawer = self.service.ask(
                f"a sampler after step {self.num_taken}", lambda _: client.save_weights_and_get_sampling_client()
            )
            self._drawer_step = self.num_taken
        return Sampler(self.service, self._drawer, self.model.tokenizer)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(jax.device_get(self._schedule(jnp.asarray(self.num_taken))))

    def measure(self, sequences: Sequence[Passage]) -> list[np.ndarray]:
        """Log-probs under the weights as they are; nothing changes."""
        weights = [{"weights": np.zeros(each.targets.shape, np.float32)} for each in sequences]
        data, client = self._data(sequences, weights), self.client
        told = self.service.ask("a forward pass", lambda _: client.forward(data, "cross_entropy"))
        self.service.count(Usage(prefill=_num_tokens(sequences)))
        return _logprobs(told)

    def take_step(
        self,
        sequences: Sequence[Passage],
        inputs: Sequence[Mapping[str, np.ndarray]],
        loss: str = "cross_entropy",
        dials: Mapping[str, float] | None = None,
    ) -> Passed:
        """One optimizer step on a named loss of the service, which adds up over all `sequences`."""
        data, client, adam = self._data(sequences, inputs), self.client, self._adam()
        doing = f"step {self.num_taken + 1}"
        # Both are on their way before either is waited for: the service then does them in one go.
        passed = self.service.submit(doing, lambda _: client.forward_backward(data, loss, dials))
        stepped = self.service.submit(doing, lambda _: client.optim_step(adam))
        told, metrics = self.service.wait(doing, passed), self.service.wait(doing, stepped).metrics
        self.service.count(Usage(train=_num_tokens(sequences)))
        self.num_taken += 1
        return Passed(_logprobs(told), _norm(metrics or {}))

    def snapshot(self, folder: Path, meta: Mapping[str, Any]) -> None:
        """Have the service save weights and optimizer state, and note where, durably; replaces an earlier `folder`."""
        client = self.client
        saved = self.service.ask(
            f"saving {folder.name}",
            lambda _: client.save_state(folder.name, ttl_seconds=KEEP_SECONDS, overwrite=True),
        )
        kept_until = datetime.now(UTC) + timedelta(seconds=KEEP_SECONDS)
        place = {"path": saved.path, "kept_until": kept_until.isoformat(timespec="seconds"), "url": self.service.where}
        facts = {"tinker": place, "usage": self.service.usage._asdict(), "meta": dict(meta)}
        save_checkpoint(folder, {"num_taken": np.asarray(self.num_taken, np.int64)}, facts, replace=True)

    def restore(self, root: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Continue from the newest intact snapshot under `root`; its `meta`, or None when there is none."""
        found = latest_checkpoint(root, {"num_taken": np.zeros((), np.int64)}, warn=warn)
        if found is None:
            return None
        place = found.meta["tinker"]
        self._client = self.service.ask(
            f"{found.folder}: going on from {place['path']}, which the service keeps until {place['kept_until']}",
            lambda clients: clients.create_training_client_from_state_with_optimizer(place["path"]),
        )
        self.num_taken = int(found.arrays["num_taken"])
        self.service.usage = Usage(**found.meta["usage"])
        return found.meta["meta"]

    def export(self, folder: Path) -> None:
        """Fetch the adapter and write it durably in PEFT's format; an earlier `folder` is replaced."""
        export_adapter(self.service, self.client, self.model, folder)

    def _data(self, sequences: Sequence[Passage], inputs: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
        sdk = self.service.sdk
        return [
            sdk.Datum(
                model_input=sdk.ModelInput.from_ints(each.tokens.tolist()),
                loss_fn_inputs={"target_tokens": each.targets.astype(np.int64), **more},
            )
            for each, more in zip(sequences, inputs, strict=True)
        ]

    def _adam(self) -> Any:
        settings = self._optimizer
        return self.service.sdk.AdamParams(
            learning_rate=self.learning_rate,
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            grad_clip_norm=settings.max_grad_norm or 0.0,
        )


def _num_tokens(sequences: Sequence[Passage]) -> int:
    return sum(len(each.tokens) for each in sequences)


def _logprobs(told: Any) -> list[np.ndarray]:
    return [output["logprobs"].to_numpy().astype(np.float64) for output in told.loss_fn_outputs]


def _norm(metrics: Mapping[str, float]) -> float | None:
    """The gradient's norm among a step's metrics, whose names end in how they add up."""
    return next((float(value) for name, value in metrics.items() if name.partition(":")[0] in _NORMS), None)
