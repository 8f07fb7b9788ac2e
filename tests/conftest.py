"""Strict arrays for every test: no silent dtype or rank promotion, shapes checked against their annotations."""

import gc
import os
import shutil
from pathlib import Path

from tracetune.app.compile_cache import processor

# No test ever meets a database of the user's own.
os.environ.pop("DATABASE_URL", None)
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the suite's time: without the costly passes it takes a third. TRACETUNE_OPTIMIZED=1 keeps them.
if not os.environ.get("TRACETUNE_OPTIMIZED"):
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
# Tests start many processes; without bytecode each would compile two hundred files of ours.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Workers and the processes that tests start share one folder of compiled programs, which the next run reads too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = Path(__file__).parents[1] / ".pytest_cache" / "compiled" / processor()
    sizes = {file: file.stat().st_size for file in compiled.glob("*")}
    if sum(sizes.values()) > 2**30:
        shutil.rmtree(compiled)
    # A process that was killed as it wrote leaves an empty file, of which JAX would warn at every later run.
    for file in [file for file, size in sizes.items() if size == 0]:
        file.unlink(missing_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook
from tests.postgres import TEMPLATE, Database, Server, running_server

# Tracing makes objects by the million, and collecting among them took a tenth of the suite's time.
gc.set_threshold(100_000, 50, 100)
install_import_hook(["tracetune.models", "tracetune.objectives", "tracetune.engine"], "beartype.beartype")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a PostgreSQL is for `make long`: each test process starts a server, and each test makes a database."""
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        chosen = [value for value in values if isinstance(value, str)]
        if "postgresql" in chosen or "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker("long")


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    """The folder of real GSM8K rows, or a skip with the reason."""
    root = Path(os.environ.get("TRACETUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = root / "gsm8k"
    if not folder.is_dir():
        pytest.skip(f"GSM8K rows are not at {folder}; set TRACETUNE_DATA to the folder that holds gsm8k/")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TRACETUNE_HOME: database and datasets of this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TRACETUNE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One server per test process, with a migrated template; a skip with the reason when there is none."""
    from tracetune.app.database import upgrade_database

    with running_server() as server:
        if isinstance(server, str):
            pytest.skip(server)
        server.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        upgrade_database(url=server.url(TEMPLATE))
        yield server


@pytest.fixture
def postgresql(home: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: Server) -> Iterator[Database]:
    """DATABASE_URL names an empty database of a real PostgreSQL, TRACETUNE_HOME an empty folder."""
    with postgres_server.database(TEMPLATE) as name:
        url = postgres_server.url(name)
        monkeypatch.setenv("DATABASE_URL", url)
        yield Database("postgresql", home, url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, home: Path) -> Database:
    """The test runs twice: on SQLite and on a real PostgreSQL, each empty and set in the environment."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    return Database("sqlite", home, None)
