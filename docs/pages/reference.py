"""The pages of the reference, written from the code itself."""

from collections.abc import Callable, Mapping
from pathlib import Path

from docs.pages import commands, configuration, http, python

PAGES = {
    "configuration.md": configuration.page,
    "commands.md": commands.page,
    "http.md": http.page,
    "python.md": python.page,
}


def write(folder: Path, pages: Mapping[str, Callable[[], str]] = PAGES) -> None:
    """Each page that has changed, so that an unchanged one is not read again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        path, text = folder / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
