"""Large files of the Hugging Face hub into its own cache, from where an earlier download stopped.

huggingface_hub goes on after a lost connection, but a process that was ended starts a file anew. Here the part that
came stays in the cache; what is whole, and has its sha256, is put in place for huggingface_hub to find.
"""

import fcntl
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, tqdm

_STREAMS = 4
_SHA256 = re.compile(r"[0-9a-f]{64}")
PARTIAL = ".resumed.incomplete"


def fetch_large(repository: str, commit: str, suffix: str = ".safetensors") -> None:
    """Bring every file of a repository's top folder with this suffix to the cache.

    Raises what huggingface_hub raises, and OSError for a connection that keeps failing or a wrong sha256.
    """
    names = [name for name in HfApi().list_repo_files(repository, revision=commit) if name.endswith(suffix)]
    wanted = [name for name in names if "/" not in name and not name.startswith("consolidated")]
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_STREAMS) as pool:
        for _ in pool.map(lambda name: _fetch(hf_hub_url(repository, name, revision=commit), name, blobs), wanted):
            pass


def _fetch(url: str, name: str, blobs: Path) -> None:
    found = get_hf_file_metadata(url)
    # Without its sha256 the parts of two downloads cannot be told apart: huggingface_hub does it whole.
    if found.etag is None or found.size is None or not _SHA256.fullmatch(found.etag):
        return
    blob = blobs / found.etag
    headers = build_hf_headers()
    if urlparse(found.location).netloc != urlparse(url).netloc:
        headers.pop("authorization", None)  # signed for its own host, and no business of another's
    with _locked(blob.with_name(found.etag + PARTIAL)) as file:
        if blob.is_file():
            return
        with tqdm(total=found.size, initial=_end(file), unit="B", unit_scale=True, desc=name) as bar:
            while (have := _end(file)) < found.size:
                _append(file, found.location, headers, bar)
                if _end(file) <= have:
                    raise OSError(f"{name}: the connection ends after {have:,} of {found.size:,} bytes")
        _check(file, found.etag, name)
        Path(file.name).replace(blob)


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The part that came, of one process at a time."""
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    if path.is_file() and not path.stat().st_size:
        path.unlink()


def _end(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _append(file: IO[bytes], url: str, headers: dict[str, str], bar: Any) -> None:
    """As many bytes as come before the connection ends."""
    asked = headers | {"Range": f"bytes={_end(file)}-", "Accept-Encoding": "identity"}
    try:
        with get_session().stream("GET", url, headers=asked, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:  # sends all of it
                file.truncate(0)
                bar.reset()
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    except HTTPError as error:
        if isinstance(error, OSError):  # the hub's own: refused, not interrupted
            raise
    finally:
        file.flush()


def _check(file: IO[bytes], sha256: str, name: str) -> None:
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # pyright: ignore[reportArgumentType]
        file.truncate(0)
        raise OSError(f"{name}: differs from the hub's sha256; it will be downloaded anew")
