"""Models by Kaggle's names. Downloads run where the extra is installed: `pip install -e '.[kaggle]'`."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tracetune.core.errors import InputError, NotFound, Unavailable
from tracetune.models.hub import locate
from tracetune.models.kaggle import download_kaggle, is_kaggle_name

needs_kagglehub = pytest.mark.skipif(not importlib.util.find_spec("kagglehub"), reason="needs the extra kaggle")
HANDLE = "google/gemma-3/transformers/gemma-3-1b-it"
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": os.urandom(1000)}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (f"kaggle:{HANDLE}", True),
        (HANDLE, True),
        (f"{HANDLE}/2", True),
        ("kaggle:anything", True),
        ("google/gemma-3-1b-it", False),
        ("runs/2026/mine", False),
        ("./a/b/c/d", False),
        ("/a/b/c/d", False),
        ("qwen3:8b", False),
    ],
)
def test_a_handle_has_four_parts_or_five(name, is_one):
    assert is_kaggle_name(name) == is_one


@pytest.mark.parametrize(
    "name", ["kaggle:", "kaggle:google/gemma-3", f"kaggle:{HANDLE}/newest", f"kaggle:{HANDLE}/1/2"]
)
def test_what_is_no_handle_is_refused_with_the_form(name):
    with pytest.raises(InputError, match="write kaggle:OWNER/MODEL/transformers/VARIATION"):
        locate(name)


@pytest.mark.parametrize("framework", ["flax", "keras", "gguf", "pyTorch"])
def test_weights_of_another_framework_are_refused_before_they_are_downloaded(framework):
    with pytest.raises(InputError, match=f"its weights are for {framework}.*one of the transformers variations"):
        locate(f"google/gemma-2/{framework}/gemma2-2b-it")


def test_without_kagglehub_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(Unavailable, match=r"needs kagglehub; run `pip install 'tracetune\[kaggle\]'`"):
        download_kaggle(f"kaggle:{HANDLE}")


def test_a_folder_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / HANDLE
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert locate(HANDLE) == Path(HANDLE)
    with pytest.raises((NotFound, Unavailable, InputError)):
        locate("google/gemma-3/flax/other")


class Kaggle(BaseHTTPRequestHandler):
    """One public model; `google/gated` asks for a licence, nothing else exists."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["modelSlug"] == "gated":
            self.answer(403, b'{"code": 403, "message": "no consent"}')
        elif asked["modelSlug"] != "gemma-3":
            self.answer(404, b'{"code": 404, "message": "no such model"}')
        elif self.path.endswith("/GetModelInstance"):
            self.answer(200, b'{"versionNumber": 2, "slug": "gemma-3-1b-it"}')
        elif self.path.endswith("/ListModelInstanceVersionFiles"):
            files = [{"name": name, "totalBytes": len(body)} for name, body in FILES.items()]
            self.answer(200, json.dumps({"files": files, "nextPageToken": ""}).encode())
        else:
            self.answer(200, FILES[asked["path"]], "application/octet-stream")

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def kaggle() -> Iterator[None]:
    """kagglehub can be turned to this one port of the own machine, and to no other."""
    with ThreadingHTTPServer(("127.0.0.1", 7777), Kaggle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def located(name: str, cache: Path, **environment: str) -> tuple[str, str]:
    """The last lines of output and of errors."""
    program = f"from tracetune.models.hub import locate; print(locate({name!r}))"
    own = {
        "KAGGLEHUB_CACHE": str(cache),
        "KAGGLE_API_ENVIRONMENT": "TEST",
        "NO_PROXY": "*",
        "KAGGLEHUB_VERBOSITY": "error",
    }
    variables = {**os.environ, **own, **environment}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    out, errors = done.stdout.strip().splitlines(), done.stderr.strip().splitlines()
    return (out[-1], "") if done.returncode == 0 else ("", errors[-1])


@needs_kagglehub
@pytest.mark.slow
def test_a_model_is_downloaded_once_and_its_version_found_offline(kaggle, tmp_path):
    folder, error = located(f"kaggle:{HANDLE}", tmp_path)
    assert error == ""
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == FILES
    nowhere = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HF_HUB_OFFLINE": "1"}
    assert located(f"{HANDLE}/2", tmp_path, **nowhere) == (folder, "")
    assert f"pin one that was downloaded: kaggle:{HANDLE}/N" in located(HANDLE, tmp_path, **nowhere)[1]


@needs_kagglehub
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("kaggle:google/gated/transformers/x", "Unavailable", "accept its licence at kaggle.com/models/google/gated"),
        ("kaggle:google/gemma-9/transformers/x", "NotFound", "not on Kaggle; look up its variations"),
    ],
)
def test_a_refusal_of_kaggle_says_what_to_do(name, kind, message, kaggle, tmp_path):
    _, error = located(name, tmp_path)
    assert error.startswith(f"tracetune.core.errors.{kind}: ")
    assert message in error
