"""`make docs`: the Markdown of the repository as pages that work offline, the references written from the code.

The source is the whole repository, so that a link between two files is the same link on the pages.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "Tracetune"
author = "The Tracetune engineers"
root_doc = "docs/index"
extensions = ["myst_parser"]
include_patterns = ["README.md", "CONTRIBUTING.md", "training/README.md", "docs/*.md", "docs/reference/*.md"]
# Folders that are large and hold no page: they are not even walked.
exclude_patterns = [".*", "src", "tests", "bench", "artifacts", "outputs", "multirun", "checkpoints", "docs/_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
# A block without a language is a shell's or plain text; neither is coloured.
highlight_language = "text"
# Quotes are those that were written: much of the text is typed again.
smartquotes = False
html_theme = "furo"
html_title = "Tracetune"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_domain_indices = False
html_use_index = False


def write_references(_: Sphinx) -> None:
    """The pages that are written from the code, before the pages are read."""
    from docs.pages.reference import write

    write(ROOT / "docs" / "reference")


def write_door(app: Sphinx, error: Exception | None) -> None:
    """A page at the top of the folder that leads to the contents."""
    if error is None:
        door = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>Tracetune</title>\n'
        (Path(app.outdir) / "index.html").write_text(door, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_references)
    app.connect("build-finished", write_door)
