"""The import law: which room may import which. The table is the design; a breach is named file:line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tracetune"

ROOMS = {
    "core": set(),
    "config": {"core"},
    "store": {"core", "config"},
    "reports": {"core", "config"},
    "objectives": {"core", "config"},
    "models": {"core", "config"},
    "data": {"core", "config", "models"},
    "tasks": {"core", "config", "data"},
    "engine": {"core", "config", "models", "objectives", "data"},
    "backends": {"core", "config", "models", "objectives", "data", "engine"},
    "train": {"core", "config", "data", "tasks", "objectives", "backends"},
    "evals": {"core", "config", "data", "tasks", "backends"},
    "app": {
        *("core", "config", "store", "reports", "objectives", "models", "data"),
        *("tasks", "engine", "backends", "train", "evals"),
    },
    "cli": {"core", "config", "app"},
    "api": {"core", "config", "app"},
    # Pages stand behind the same guard and rules as the API: they are routes of one service.
    "web": {"core", "config", "app", "api"},
}
NAMELESS = {"utils", "util", "common", "helpers", "helper", "lib", "manager", "base", "misc"}
STDLIB_ONLY_PLUS = {"core": {"numpy"}}
NO_JAX = ("core", "config", "store", "reports", "cli", "api", "web")


class Import(ast.NodeVisitor):
    """Every module name that a file imports, wherever in the file, with its line."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, alias.name) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        names = [alias.name for alias in node.names] if node.module == "tracetune" else [""]
        self.found += [(node.lineno, f"{node.module}.{name}".rstrip(".")) for name in names]


def imports(source: str) -> list[tuple[int, str]]:
    visitor = Import()
    visitor.visit(ast.parse(source))
    return visitor.found


def breaches(room: str, source: str) -> Iterator[str]:
    """Lines of one file of `room` that import a room its row does not name."""
    for line, module in imports(source):
        parts = module.split(".")
        if parts[0] == "tracetune" and len(parts) > 1 and parts[1] in ROOMS and parts[1] not in ROOMS[room] | {room}:
            yield f"{line}: {room} imports {parts[1]}"
        if parts[0] in {"jax", "jaxlib"} and room in NO_JAX:
            yield f"{line}: {room} imports {parts[0]}"
        if parts[0] == "sqlalchemy" and room != "store":
            yield f"{line}: {room} speaks SQL; only store does"


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_each_room_imports_only_what_its_row_allows(room):
    found = [
        f"{path.relative_to(SOURCE)}:{breach}"
        for path in sorted((SOURCE / room).rglob("*.py"))
        for breach in breaches(room, path.read_text())
    ]
    assert not found, "\n".join(found)


def test_the_law_sees_a_breach():
    assert list(breaches("store", "import jax")) == ["1: store imports jax"]
    assert list(breaches("models", "def f():\n    from tracetune.store.open import open_store")) == [
        "2: models imports store"
    ]
    assert list(breaches("data", "from tracetune import engine")) == ["1: data imports engine"]
    assert list(breaches("app", "from sqlalchemy import text")) == ["1: app speaks SQL; only store does"]
    assert not list(breaches("data", "from tracetune.models.tokenizer import Tokenizer"))


def test_every_folder_of_the_package_is_a_room_of_the_table():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


def test_no_module_has_a_name_without_a_meaning():
    assert not [str(path) for path in files() if path.stem in NAMELESS or path.parent.name in NAMELESS]


def test_core_needs_only_the_standard_library_and_numpy():
    import sys

    allowed = set(sys.stdlib_module_names) | {"numpy", "tracetune"}
    outside = [
        f"{path.name}:{line}: {module}"
        for path in (SOURCE / "core").glob("*.py")
        for line, module in imports(path.read_text())
        if module.split(".")[0] not in allowed
    ]
    assert not outside
