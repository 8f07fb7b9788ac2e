"""A Weights & Biases run beside a run folder, online with a key or offline; resumed under the same id."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracetune.config.grpo_schema import TrackingSettings
from tracetune.core.durable import write_durably
from tracetune.core.ids import new_id

RECORD = "wandb.json"
INSTALL = 'pip install -e ".[wandb]"'
# W&B raises classes outside its own tree, bare `Exception`s of its service among them; none of them may end a run.
ERRORS: tuple[type[Exception], ...] = (Exception,)
_LONGEST_WAIT_SECONDS = 60


def is_wanted(settings: TrackingSettings, environ: Mapping[str, str]) -> bool:
    """A key is configured, or offline mode is asked for, and neither the settings nor W&B's own switch say no."""
    mode = environ.get("WANDB_MODE", "online")
    if settings.wandb_disabled or mode == "disabled" or environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return False
    return mode in ("offline", "dryrun") or bool(environ.get("WANDB_API_KEY"))


class WandbRun:
    """Gives every step once: `wandb.json` beside the metrics keeps the run's id and the last step given."""

    name = "W&B"
    errors = ERRORS

    def __init__(self, folder: Path, settings: TrackingSettings, config: Mapping[str, Any]) -> None:
        """Open the run, the same one again when `folder` has one. Raises ImportError, or one of `ERRORS`."""
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        self._record = folder / RECORD
        kept = json.loads(self._record.read_bytes()) if self._record.exists() else {"id": new_id(), "step": 0}
        self._id, self._last = str(kept["id"]), int(kept["step"])
        self._keep()
        wandb.setup(wandb.Settings(silent=True))
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        self._run = wandb.init(
            project=settings.wandb_project,
            name=settings.wandb_run or folder.name,
            id=self._id,
            dir=folder,
            config=dict(config),
            mode="offline" if offline else "online",
            resume=None if offline else "allow",
            settings=wandb.Settings(silent=True, console="off", init_timeout=_LONGEST_WAIT_SECONDS),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give one step; one that a resumed run repeats was given before."""
        if step > self._last:
            self._run.log(dict(metrics), step=step)
            self._last = step
            self._keep()

    def close(self) -> None:
        """Finish the run, so that what waits is sent."""
        self._run.finish()

    def _keep(self) -> None:
        write_durably(self._record, json.dumps({"id": self._id, "step": self._last}).encode())
