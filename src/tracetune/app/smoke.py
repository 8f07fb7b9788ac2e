"""A quick look at a file of training rows: do they read, does their mask hold, does `tiny` learn from them?"""

import tempfile
from pathlib import Path
from typing import NamedTuple, TextIO

from tracetune.app.runs import RunFolder, find_manifest, read_metrics
from tracetune.app.sft import run_sft
from tracetune.config.resolve import load_sft_config

STEPS = 20


class Smoke(NamedTuple):
    """Loss in nats at the first and the last of `STEPS` steps on `num_rows` rows."""

    num_rows: int
    first_loss: float
    last_loss: float

    @property
    def falls(self) -> bool:
        """Whether the model learnt anything."""
        return self.last_loss < self.first_loss


def smoke(data: Path, *, samples: int, max_length: int = 1024, stream: TextIO | None = None) -> Smoke:
    """Train `tiny` for some steps on the first `samples` rows, in a temporary folder.

    Raises NotFound, InputError or MaskError naming the bad row.
    """
    config = load_sft_config(
        {
            "model": {"name": "tiny", "max_length": max_length},
            "training": {"num_steps": STEPS, "batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 2},
            "optimizer": {"schedule": "constant"},
        }
    )
    with tempfile.TemporaryDirectory(prefix="tracetune-smoke-") as scratch:
        folder = RunFolder(Path(scratch) / "run", config.output)
        run_sft(config, data=data, output=folder.root, max_samples=samples, stream=stream)
        rows = read_metrics(folder.metrics)
        _, manifest = find_manifest(folder.root)
    return Smoke(manifest["num_examples"], rows[0]["loss"], rows[-1]["loss"])
