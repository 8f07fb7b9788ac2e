"""What the README tells to type at the service is typed, on a real server."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from tests.api.serving import serving

from tracetune.api.settings import ServiceSettings
from tracetune.core.results import Verdict

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```bash\n((?:(?!```).)*curl.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="the README's lines read JSON with jq, which is not here")
def test_the_readmes_curl_lines_do_the_main_job(home: Path, tmp_path: Path):
    (block,) = BLOCK.findall((ROOT / "README.md").read_text())
    with serving(ServiceSettings(home=home, run_slots=1)) as (host, port):
        script = block.replace("127.0.0.1:8000", f"{host}:{port}").replace("curl -s", "curl --fail-with-body -s")
        typed = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) in get_args(Verdict)
    assert len((tmp_path / "duels.jsonl").read_text().splitlines()) > 100
