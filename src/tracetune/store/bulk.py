"""Many rows at once, by the fastest way each database has: SQLite's prepared insert, PostgreSQL's COPY."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Connection, String, TextClause, text


def array_text(numbers: Iterable[int] | Iterable[str]) -> str:
    """PostgreSQL's text for an array: the driver is slow with long lists.

    >>> array_text([1, -2])
    '{1,-2}'
    """
    return f"{{{','.join(map(str, numbers))}}}"


def among(connection: Connection, column: Column[Any], values: Sequence[int] | Sequence[str]) -> TextClause:
    """The column is one of the values, numbers or ids. They are one parameter, so that one statement serves all."""
    if connection.dialect.name == "sqlite":
        return text(f"{column} IN (SELECT value FROM json_each(:among))").bindparams(among=json.dumps(list(values)))
    kind = "text" if isinstance(column.type, String) else "bigint"
    return text(f"{column} = ANY(CAST(:among AS {kind}[]))").bindparams(among=array_text(values))


def insert_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows whose values stand in the order of `columns`, inside the connection's transaction."""
    names = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        some = list(rows)
        if some:
            connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", some)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
