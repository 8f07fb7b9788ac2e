"""The README's walk of the maths tutor, typed as it stands: what each command takes, and what each stage reaches.

`python bench/tutor.py [--folder DIR]` runs the block in an empty folder (a temporary one without `--folder`)
that holds this workspace's `training/`. It prints seconds by command, then the maths accuracy of every stage with its
change from the stage before, and the share of the gap between student and teacher that distillation closed; the last
line is one JSON object. Programs are compiled anew, as on a machine that has never run the walk. Exits 1 when a command
fails, or less than half of the gap is closed.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STAGES = {
    "student": "sft/sft_001_student",
    "teacher": "sft/sft_002_teacher",
    "distilled": "distillation/dist_001_on_policy",
    "rlvr": "rlvr/rlvr_001_by_topic",
}
METRIC = "numeric_match_accuracy"
LEAST_SHARE = 0.5


def main() -> None:
    """Walk, then read what the experiments recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="an empty folder to walk in; it is kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).resolve()
        shutil.copytree(ROOT / "training", folder / "training")
        seconds = [(line, walk(line, folder)) for line in commands()]
        stages = {name: measured(folder / "training" / "experiments" / place) for name, place in STAGES.items()}
    for line, spent in seconds:
        print(f"{spent:>7.1f} s  {line}")
    print(f"\n{'stage':<10} {'right':>18}  from the model compared with")
    for name, found in stages.items():
        print(f"{name:<10} {told(found):>18}  {change(found)}")
    total = round(sum(spent for _, spent in seconds), 1)
    before, teacher, after = (stages[name]["value"] for name in ("student", "teacher", "distilled"))
    share = (after - before) / (teacher - before) if teacher > before else 0.0
    print(f"\nof the gap between student and teacher {share:.0%} is closed")
    print(json.dumps({"seconds": total, "cores": os.cpu_count(), "share_of_gap_closed": share, "stages": stages}))
    sys.exit(share < LEAST_SHARE)


def commands() -> Iterator[str]:
    """The lines of the README's block."""
    section = (ROOT / "README.md").read_text().split("## The maths tutor", 1)[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block, "the README has the walk"
    yield from filter(None, block[1].splitlines())


def walk(line: str, folder: Path) -> float:
    """Type one line; its seconds."""
    words = shlex.split(line)
    program = [sys.executable, "-m", "tracetune"] if words[0] == "tracetune" else [sys.executable]
    began = time.perf_counter()
    print(f"$ {line}", file=sys.stderr)
    environment = {**os.environ, "TRACETUNE_HOME": str(folder / "artifacts")}
    environment["TRACETUNE_COMPILE_CACHE"] = str(folder / "compiled")
    done = subprocess.run([*program, *words[1:]], cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {line}")
    return time.perf_counter() - began


def measured(folder: Path) -> dict[str, Any]:
    """What a stage's benchmark says of mathematics, and of the change."""
    found = json.loads((folder / "benchmark_results.json").read_text())["rates"][METRIC]
    compared = json.loads((folder / "comparison.json").read_text())
    rows = [row for kind in ("improvements", "regressions", "unchanged") for row in compared[kind]]
    row = next(row for row in rows if row["metric"] == METRIC)
    return found | {"baseline": row["baseline"], "p_adjusted": row["p_adjusted"], "change": row["change"]}


def told(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.1%} ({low:.0%}–{high:.0%})"


def change(found: dict[str, Any]) -> str:
    return f"{found['baseline']:.1%}: {found['change']}, p = {found['p_adjusted']:.2g}"


if __name__ == "__main__":
    main()
