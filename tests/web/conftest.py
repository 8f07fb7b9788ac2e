"""The service with its pages on an empty home of its own, spoken to in process; runs are not started."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tracetune.api.settings import ServiceSettings
from tracetune.web.site import create_site

HTML = {"Accept": "text/html"}


@pytest.fixture
def settings(home: Path) -> ServiceSettings:
    """As `tracetune serve --no-runs` makes them."""
    return ServiceSettings(home=home, run_slots=0)


@pytest.fixture
def browser(settings: ServiceSettings) -> Iterator[TestClient]:
    """Asks for pages as a browser of this machine's own user does, and follows no redirect by itself."""
    with TestClient(
        create_site(settings), base_url="http://localhost:8000", headers=HTML, follow_redirects=False
    ) as found:
        yield found
