"""Every route of the service and its pages, asked by every kind of caller: nobody gets further than the rule says."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update
from starlette.routing import BaseRoute

from tracetune.api.policy import SCOPE_KEY
from tracetune.api.settings import ServiceSettings
from tracetune.api.strict import StrictRoute
from tracetune.app.tokens import create_token, revoke_token
from tracetune.store import tables
from tracetune.store.open import open_store
from tracetune.web.site import create_site

pytestmark = pytest.mark.slow

SOME_ID = "00000000-0000-4000-8000-000000000000"
SCOPES = ("read", "write", "train", "admin")
NOBODY = ("none", "bad", "revoked", "expired")


def routes(app: FastAPI) -> Iterator[BaseRoute]:
    """Every route, those of included routers too."""
    for route in app.routes:
        router = getattr(route, "original_router", None)
        yield from [route] if router is None else router.routes


def ruled(app: FastAPI) -> list[tuple[str, str, str]]:
    """(method, path, scope) of every route."""
    found = [route for route in routes(app) if isinstance(route, StrictRoute)]
    return sorted((method, route.path, route.rules[SCOPE_KEY]) for route in found for method in route.methods)


@pytest.fixture
def site(home):
    settings = ServiceSettings(home=home, run_slots=0, require_token=True)
    with TestClient(create_site(settings), base_url="http://localhost:8000", follow_redirects=False) as found:
        yield found


@pytest.fixture
def callers(site) -> dict[str, dict[str, str]]:
    """The headers of each kind of caller."""
    secrets = {scope: create_token(scope, [scope]).secret for scope in SCOPES}
    revoked, expired = (create_token(name, ["admin"]) for name in ("revoked", "expired"))
    revoke_token(revoked.token.token_id)
    with open_store() as store, store.write() as connection:
        mine = tables.tokens.c.token_id == expired.token.token_id
        connection.execute(update(tables.tokens).where(mine).values(expires_at="2020-01-01T00:00:00.000000+00:00"))
    secrets |= {"bad": "tt_" + "a" * 43, "revoked": revoked.secret, "expired": expired.secret}
    return {"none": {}, **{name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}}


def filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", SOME_ID, path)


def expected(caller: str, scope: str) -> str:
    if scope == "open" or caller in (scope, "admin"):
        return "in"
    return "unknown" if caller in NOBODY else "too narrow"


def seen(status: int) -> str:
    return {401: "unknown", 403: "too narrow"}.get(status, "in")


def test_every_route_has_a_rule(site):
    assert [route for route in routes(site.app) if not isinstance(route, StrictRoute)] == []
    assert len(ruled(site.app)) > 50


def test_only_these_routes_are_open(site):
    found = {path for _, path, scope in ruled(site.app) if scope == "open"}
    needed = {"/livez", "/readyz", "/api/health", "/openapi.json", "/login", "/logout"}
    assert needed <= found
    assert found - needed <= {"/static/{folder}/{name}", "/favicon.ico", "/robots.txt"}


def test_a_route_that_changes_something_asks_for_more_than_reading(site):
    changing = [each for each in ruled(site.app) if each[0] not in ("GET", "HEAD", "OPTIONS")]
    found = {path for _, path, scope in changing if scope in ("open", "read")}
    # A question with a body, or a form that leads to another page, changes nothing.
    assert found <= {"/login", "/logout", "/api/chat", "/chat", "/api/baselines/{name}/check", "/traces/chosen"}


@pytest.mark.long
def test_no_caller_gets_further_than_the_rule_says(site, callers):
    wrong = []
    for method, path, scope in ruled(site.app):
        for caller, headers in callers.items():
            # A browser's token is asked for by redirecting to the login page, a program's by 401.
            answer = site.request(method, filled(path), headers={"Accept": "application/json", **headers})
            if path not in ("/login",) and seen(answer.status_code) != expected(caller, scope):
                wrong.append((method, path, scope, caller, answer.status_code))
            if answer.status_code >= 500:
                wrong.append((method, path, "a mistake of the service", caller, answer.status_code))
    assert wrong == []


def test_the_matrix_sees_a_deviation(site, callers):
    assert expected("read", "write") == "too narrow"
    assert expected("revoked", "read") == "unknown"
    assert seen(site.get("/api/traces", headers=callers["read"]).status_code) == "in"


VARIANTS = [
    lambda path: path + "/",
    lambda path: path.replace("/", "//"),
    lambda path: path.upper(),
    lambda path: "/x/.." + path,
    lambda path: path.replace("/", "/%2e/", 1),
    lambda path: path.replace("a", "%61", 1),
    lambda path: path + "%20",
    lambda path: path + ";x=1",
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_another_spelling_of_a_path_is_no_way_in(site, variant):
    wrong = []
    for method, path, scope in ruled(site.app):
        status = site.request(method, variant(filled(path))).status_code
        if scope != "open" and status not in (303, 401, 404, 405):
            wrong.append((method, path, status))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "CONNECT", "X-" + "y" * 50])
def test_another_method_is_no_way_in(site, method):
    known = {(each, path) for each, path, _ in ruled(site.app)}
    for path in {path for _, path in known}:
        if (method, path) not in known:
            answer = site.request(method, filled(path))
            assert answer.status_code in (401, 404, 405), (method, path)


@pytest.mark.slow
def test_every_refusal_of_a_route_is_in_its_openapi(site):
    paths = site.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            missing = {"400", "403", "408", "413", "415", "421", "422", "500", "503"} - set(operation["responses"])
            assert not missing, (method, path, missing)
            if operation[SCOPE_KEY] != "open":
                assert operation["security"] == [{"bearer": []}]
                assert "401" in operation["responses"]
