"""The service against its own OpenAPI: thousands of drawn requests, no server error, no undocumented answer.

`TRACETUNE_FUZZ_CASES` (5,000) is how many at least; `make soak` asks for 20,000. Every other request with an id has
that of something that exists, so that more is seen than the 404 of each route.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.config._checks import PositiveDataAcceptanceConfig
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.schemas import APIOperation, BaseSchema
from starlette.testclient import TestClient

from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings
from tracetune.app.evaluations import record_evaluation
from tracetune.app.tokens import create_token

pytestmark = pytest.mark.long

LONGEST_DRAWN = 8_192  # what Hypothesis has of entropy for a whole request
CASES = int(os.environ.get("TRACETUNE_FUZZ_CASES") or 5_000)
TRACE = {
    "trace_version": "1.0",
    "prompt": "2+3?",
    "final_answer": "5",
    "steps": [{"i": 0, "type": "t", "content": "c"}],
}


def furnish(client: TestClient, home: Path) -> dict[str, str]:
    """Make one of everything; the ids by the names that paths and queries give them."""
    trace_id = client.post("/api/traces", json=TRACE).json()["id"]
    made = {"dataset_name": "fuzz", "dataset_version": "v1", "limit": 5, "selection_strategy": "latest"}
    key = client.post("/api/datasets/build", json=made).json()["dataset_key"]
    problems = [{"id": "p1", "prompt": "7+8?", "expected_answer": "15"}]
    client.post("/api/evalsets", json={"name": "fuzz", "problems": problems}).raise_for_status()
    run_id = client.post("/api/runs", json={"kind": "sft", "dataset": key, "overrides": ["steps=1"]}).json()["run_id"]
    client.post(f"/api/runs/{run_id}/cancel").raise_for_status()
    answers = home / "answers.jsonl"
    meta = {"source": "evaluation", "eval_id": "p1", "model": "tiny", "expected_answer": "15"}
    answers.write_text(json.dumps({**TRACE, "prompt": "7+8?", "final_answer": "15", "meta": meta}) + "\n")
    stored = record_evaluation(home, run_id=None, model="tiny", eval_set="fuzz", file=answers)
    evaluation_id = stored.evaluation_id
    client.put("/api/baselines/fuzz", json={"evaluation_id": evaluation_id}).raise_for_status()
    return {
        "trace_id": trace_id,
        "base": trace_id,
        "other": trace_id,
        "trace_ids": trace_id,
        "key": key,
        "dataset": key,
        "name": "fuzz",
        "eval_set": "fuzz",
        "run_id": run_id,
        "ids": run_id,
        "evaluation_id": evaluation_id,
        "before": evaluation_id,
        "after": evaluation_id,
        "id": run_id,
    }


def drawable(schema: Any) -> Any:
    """The schema without the lengths that no drawn text reaches.

    Of a pattern and a length together one regular expression is made, and of `\\S{1,50000}` an automaton for each body.
    """
    match schema:
        case {"pattern": str(), "maxLength": int(length), **rest} if length > LONGEST_DRAWN:
            return {"pattern": schema["pattern"], **rest}
        case dict():
            return {key: drawable(value) for key, value in schema.items()}
        case list():
            return [drawable(value) for value in schema]
        case _:
            return schema


@contextmanager
def service(home: Path) -> Iterator[tuple[BaseSchema, dict[str, str]]]:
    """The schema of a service over `home`, and ids of what is there by parameter name."""
    tree = home / "experiments"
    (tree / "baseline" / "fuzz").mkdir(parents=True)
    settled = ServiceSettings(
        home=home, experiments=tree, run_slots=0, require_token=True, allowed_hosts=("testserver",)
    )
    app = create_service(settled)
    secret = create_token("fuzz", ("admin",), home=home).secret
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as client:
        known = furnish(client, home)
        schema = schemathesis.openapi.from_dict(drawable(client.get("/openapi.json").json()))
        schema.app = app
        schema.config.generation.update(modes=list(GenerationMode))
        # NUL is refused everywhere (400 in an address, 422 in a body): no schema has a word for it.
        schema.config.generation.allow_x00 = False
        # A 422 for a request that keeps the schema is a rule that schemas have no word for: a cursor of ours, a
        # dataset that exists, overrides that fit together.
        accepted = {"expected-statuses": ["2xx", "3xx", "400", "401", "403", "404", "409", "422", "503"]}
        schema.config.checks.positive_data_acceptance = PositiveDataAcceptanceConfig.from_dict(accepted)
        schema.auth.set_from_requests(Bearer(secret))
        yield schema, known


class Bearer(requests.auth.AuthBase):
    """The token of every request that is not to go without."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add it."""
        request.headers["Authorization"] = f"Bearer {self.secret}"
        return request


def probe(operation: APIOperation, known: dict[str, str], num_cases: int) -> Iterator[str]:
    """Send `num_cases` drawn requests of each kind, valid and invalid; every distinct failure as text."""
    failures: dict[str, str] = {}
    drawn = Counter()

    def send(case: Case) -> None:
        drawn[case.path] += 1
        # A run that waits again has a log without an end.
        if drawn.total() % 2 and not case.path.endswith("/resume"):
            for given_ids in (case.path_parameters, case.query):
                given_ids |= {name: known[name] for name in given_ids if name in known}
        try:
            case.call_and_validate()
        except FailureGroup as group:
            for failure in group.exceptions:
                assert isinstance(failure, Failure)
                failures.setdefault(f"{failure.title}: {failure.message}"[:200], str(case.as_curl_command())[:600])

    for mode in GenerationMode:
        quiet = settings(
            max_examples=num_cases,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        # Some requests cannot be made invalid: a route without parameters.
        with suppress(Unsatisfiable):
            quiet(given(operation.as_strategy(generation_mode=mode))(send))()
    TALLY[operation.label] += drawn.total()
    for title, command in failures.items():
        yield f"{operation.label}\n  {title}\n  {command}"


TALLY: Counter[str] = Counter()


@pytest.mark.slow
def test_every_answer_is_documented_and_none_is_a_server_error(tmp_path: Path):
    with service(tmp_path) as (schema, known):
        # What fills the store comes last: all that reads or freezes it would take as many rows as were drawn.
        routes = [result.ok() for result in schema.get_all_operations()]
        operations = sorted(routes, key=lambda each: each.label == "POST /api/ungar/high-card-duel/generate")
        varied = [bool(each.body or any(each.iter_parameters())) for each in operations]
        found: list[str] = []
        for place, operation in enumerate(operations):
            # Half valid, half not; what one route has too few different requests for is left to the next.
            num_cases = ceil((CASES - TALLY.total()) / 2 / max(1, sum(varied[place:])))
            found += probe(operation, known, max(1, num_cases))
    assert not found, "\n\n".join(found)
    assert TALLY.total() >= CASES, TALLY
