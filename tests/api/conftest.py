"""The service on an empty home of its own, spoken to in process; runs are not started."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.app.conftest import small_model

from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings

__all__ = ["small_model"]


@pytest.fixture
def settings(home: Path) -> ServiceSettings:
    """As `tracetune serve --no-runs` makes them."""
    return ServiceSettings(home=home, run_slots=0)


@pytest.fixture
def client(settings: ServiceSettings) -> Iterator[TestClient]:
    """A client of this machine's own user, without a token."""
    with TestClient(create_service(settings), base_url="http://localhost:8000") as found:
        yield found
