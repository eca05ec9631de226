"""The OpenAPI document holds: what schemathesis makes of it gets no 5xx and no answer that is not documented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (pip install schemathesis)")

ROUTES = (
    "POST /events", "POST /explain", "GET /health", "POST /history", "GET /items", "POST /items", "GET /metrics",
    "POST /recommend", "POST /reload", "GET /report", "POST /similar", "GET /users",
)  # fmt: skip
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
EXAMPLES = 20  # for each route, of what the document allows and of what it forbids


@pytest.fixture(scope="module")
def operations(port: int) -> dict[str, Any]:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def test_document_lists_every_route(operations: dict[str, Any]) -> None:
    assert sorted(operations) == sorted(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_route_answers_what_it_does_not_document(operations: dict[str, Any], route: str, mode: str) -> None:
    operation = operations[route]
    takes = operation.body or operation.query
    if mode == "negative" and not takes:
        pytest.skip("it takes nothing that could be wrong")
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def check(case: Any) -> None:
        case.call_and_validate(checks=checks)

    check()
