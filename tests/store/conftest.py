"""An empty store, on SQLite and on PostgreSQL."""

from collections.abc import Iterator

import pytest
from tests.postgres import Database

from tracetune.store.open import Store, open_store


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """The store that `open_store()` opens in this test; the test runs on both databases."""
    with open_store() as opened:
        yield opened
