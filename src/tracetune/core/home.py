"""Where a user's records live: `$TRACETUNE_HOME`, or `artifacts/` in the current folder."""

import os
from pathlib import Path


def home_folder(home: Path | None = None) -> Path:
    """The folder of the database and the frozen datasets; an explicit `home` wins over the environment."""
    return home or Path(os.environ.get("TRACETUNE_HOME") or "artifacts")
