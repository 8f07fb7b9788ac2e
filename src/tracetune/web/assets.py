"""The files behind the pages, ours and the vendored ones: read once, served under a version that is their hash.

A page names `/static/{version}/{file}`, so a browser may keep a file for ever and never shows an old one. Modules
import each other by relative paths and so stay within one version.
"""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from fastapi import Request, Response

from tracetune.api.errors import ApiError
from tracetune.api.policy import rule
from tracetune.api.strict import Router

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

router = Router(tags=["pages"])


class Asset(NamedTuple):
    """One file with its type and the hash of its bytes."""

    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Every served file by name. A name that is not here is not on disk either, whatever its dots and slashes."""
    found = {}
    for path in sorted(files("tracetune.web").joinpath("static").iterdir(), key=lambda path: path.name):
        media_type = MEDIA_TYPES.get(path.name.rpartition(".")[2])
        if media_type:
            content = path.read_bytes()
            found[path.name] = Asset(content, media_type, sha256(content).hexdigest())
    return found


@cache
def version() -> str:
    """Changes when any file does."""
    whole = "".join(name + asset.digest for name, asset in assets().items())
    return sha256(whole.encode()).hexdigest()[:12]


def asset_url(name: str) -> str:
    """The address of a file as pages name it; a name that is not served is a mistake of ours."""
    assert name in assets(), name
    return f"/static/{version()}/{name}"


@router.get("/static/{folder}/{name}", **{**rule("open", 404), "include_in_schema": False})
def static(folder: str, name: str, request: Request) -> Response:
    """A file; under another version than today's it is served too, but asked for again each time."""
    asset = assets().get(name)
    if asset is None:
        raise ApiError(404, "no such file")
    fresh = "public, max-age=31536000, immutable" if folder == version() else "no-cache"
    headers = {"Cache-Control": fresh, "ETag": f'"{asset.digest[:32]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
