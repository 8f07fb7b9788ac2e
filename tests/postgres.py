"""A PostgreSQL server for tests: its own folder, a socket and no port, and an empty database in milliseconds."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, create_engine, text

PREFIX = "tracetune-pg-"
TEMPLATE = "tracetune_template"
# A test's server never meets a power cut; acknowledged commits still survive its own crash.
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=200", "listen_addresses=", "shared_buffers=64MB")


class Database(NamedTuple):
    """An empty, migrated database of one test. `url` is DATABASE_URL; None is the SQLite file under `home`."""

    kind: str
    home: Path
    url: str | None


class Server:
    """One running server; `url(name)` is what DATABASE_URL says for a database of it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.count = 0
        self.control("initdb", "-o", "-U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync")
        self.start()

    def url(self, name: str) -> str:
        url = URL.create("postgresql", username="postgres", database=name, query={"host": str(self.folder)})
        return url.render_as_string(hide_password=False)

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={self.folder}"))
        self.control("start", "-o", options, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: the server's processes die at once, and the next start recovers."""
        self.control("stop", "-m", mode)

    def control(self, verb: str, *arguments: str) -> None:
        command = [str(self.programs / "pg_ctl"), verb, "-D", str(self.folder / "data"), "-w", "-s", *arguments]
        # The server refuses to run as root, and inherits no pipe, so that nobody waits for it.
        done = subprocess.run(
            command,
            user=unprivileged(),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"

    def execute(self, statement: str, database: str = "postgres") -> list:
        """Run one statement as the administrator, outside a transaction, over a connection of its own."""
        engine = create_engine(self.url(database).replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            result = connection.execute(text(statement))
            rows = list(result) if result.returns_rows else []
        engine.dispose()
        return rows

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, dropped afterwards."""
        self.count += 1
        name = f"test_{self.count}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running_server() -> Iterator[Server | str]:
    """A server until the end of the block, or why there is none."""
    programs = find_programs()
    if programs is None:
        yield "PostgreSQL is not installed (apt-get install postgresql)"
        return
    _clear_orphans()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
    if (user := unprivileged()) is not None:
        shutil.chown(folder, user)
    folder.chmod(0o755)
    try:
        server = Server(programs, folder)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_orphans() -> None:
    """A server whose folder is gone ends by itself within a minute; it was left by tests that were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*-*"):
        if not Path("/proc", folder.name.removeprefix(PREFIX).split("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian puts the newest."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def unprivileged() -> str | None:
    """Whom the server runs as when the tests run as root; None is the user of the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
