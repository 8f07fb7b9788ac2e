"""PostgreSQL, by psycopg 3, with the promises that SQLite gives: one writer at a time, reads of one moment.

A write transaction holds one advisory lock, so rows become visible in the order of their `seq`: a reader that
pages by `seq` never misses one, and "look, then insert" is safe between machines.
"""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext

from tracetune.core.errors import InputError, Unavailable
from tracetune.store.faults import READ_ONLY

# "tracetun" as a 64-bit number: any other application of the same database is unlikely to lock it.
WRITER = int.from_bytes(b"tracetun", "big")
# Not also declared read-only: the driver would then declare writes READ WRITE, which overrides a server's choice.
READ = {"isolation_level": "REPEATABLE READ"}
# A server may serve 100 connections to several machines. The ping finds the ones that a restart has cut.
POOL = {"pool_size": 5, "max_overflow": 15, "pool_pre_ping": True, "pool_use_lifo": True}
# A peer that vanished is noticed within seconds, at both ends.
CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "tracetune",
    "client_encoding": "utf8",
}
STATEMENT_SECONDS = 60
# A stopped process would hold the writer's lock for ever.
IDLE_SECONDS = 60


def postgres_engine(url: URL, wait_seconds: float) -> Engine:
    """Connections to the server. Raises Unavailable without the driver, with the command that installs it."""
    _check_options(url)
    asked = {name: value for name, value in CONNECT.items() if name not in url.query}
    driver = url.set(drivername="postgresql+psycopg")
    engine = create_engine(driver, connect_args=asked, pool_timeout=wait_seconds, **POOL)
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
        "lock_timeout": wait_seconds,
    }

    def configure(connection: Any, _record: Any) -> None:
        settings = ", ".join(f"set_config('{name}', '{round(value * 1000)}', false)" for name, value in limits.items())
        connection.execute(f"SELECT {settings}")
        connection.commit()

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _leave_read_only)
    return engine


def require_utf8(connection: Connection, where: str) -> None:
    """Raise InputError for a database in another encoding: it could not keep every character."""
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise InputError(f"{where}: its encoding must be UTF8, got {encoding}; create it with ENCODING 'UTF8'")


def _check_options(url: URL) -> None:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo
    except ImportError as error:
        raise Unavailable('PostgreSQL needs its driver; run pip install "tracetune[postgres]"') from error
    try:
        make_conninfo("", **dict.fromkeys(url.query, ""))
    except ProgrammingError as error:
        raise InputError(f"DATABASE_URL: what stands after ? is not understood ({str(error).strip()})") from None


def _begin(connection: Connection) -> None:
    # The first statement, so that every later one sees what the writer before this one committed.
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")


def _leave_read_only(context: ExceptionContext) -> None:
    # After a failover the old server still answers, read-only: new connections may reach the new one.
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
