"""One writer at a time where PostgreSQL would let two decide on the same rows; SQLite has one writer anyway."""

from typing import Literal

from sqlalchemy import Connection, text

# Advisory locks are numbers; these are ours, and each ends with the transaction that took it.
_NUMBERS = {"evaluations": 7_412_101, "models": 7_412_102, "baselines": 7_412_103}


def take_turn(connection: Connection, table: Literal["evaluations", "models", "baselines"]) -> None:
    """Wait until no other transaction decides on `table`; whoever reads after this sees what they wrote."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _NUMBERS[table]})
