"""Downloads from a hub that this file plays itself: what users meet online, offline and without a licence."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "Qwen/Qwen3-0.6B"
FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": b"weights",
    "README.md": b"not wanted",
    "onnx/model.safetensors": b"nor this",
}


class Hub(BaseHTTPRequestHandler):
    """One public repository; `gated/…` asks for a licence, `down/…` fails, nothing else exists."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            files = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": "0" * 40} for name in FILES]
            self.answer(200, json.dumps(files).encode())
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            body = FILES[path.split("/", 5)[5]]
            self.answer(200, body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT})
        elif "/gated/" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "/down/" in path:
            self.answer(501, b"{}")
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def locate(name: str, cache: Path, **environment: str) -> tuple[str, str]:
    """Standard output and the last line of the traceback; huggingface_hub reads its environment once, at import."""
    program = f"from tracetune.models.hub import locate; print(locate({name!r}))"
    variables = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    return done.stdout.strip(), lines[-1] if done.returncode else ""


@pytest.mark.slow
def test_a_repository_is_downloaded_once_and_then_found_offline(hub, tmp_path):
    folder, error = locate("qwen3:0.6b", tmp_path, HF_ENDPOINT=hub)
    assert error == ""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    assert found == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert locate("qwen3_0p6b", tmp_path, HF_HUB_OFFLINE="1") == (folder, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("Qwen/Qwen3-0.6", "NotFound", "model 'Qwen/Qwen3-0.6': no such folder or repository (did you mean Qwen/Qwen3"),
        ("gated/model", "Unavailable", "accept it at huggingface.co/gated/model and set HF_TOKEN"),
        ("down/model", "Unavailable", "model 'down/model': "),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(name, kind, message, hub, tmp_path):
    _, error = locate(name, tmp_path, HF_ENDPOINT=hub)
    assert error.startswith(f"tracetune.core.errors.{kind}: ")
    assert message in error


@pytest.mark.slow
def test_no_network_says_what_to_do(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        _, error = locate("qwen3:0.6b", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert error.startswith("tracetune.core.errors.Unavailable: model 'qwen3:0.6b' (Qwen/Qwen3-0.6B): ")
    assert "hf download Qwen/Qwen3-0.6B" in error


def test_switched_off_says_what_to_do(tmp_path):
    _, error = locate("qwen3:0.6b", tmp_path, HF_HUB_OFFLINE="1")
    assert error.startswith("tracetune.core.errors.Unavailable: model 'qwen3:0.6b' (Qwen/Qwen3-0.6B): ")
    assert "hf download Qwen/Qwen3-0.6B" in error
