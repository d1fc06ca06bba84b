"""Whatever its own schema allows, and what it does not: the server answers as the schema says."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.serve._running import Running

schemathesis = pytest.importorskip("schemathesis", reason="the routes are fuzzed by schemathesis")
positive_data_acceptance = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance
EXAMPLES = 25
ROUTES = [
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def schema(tiny_run):
    running = Running(tiny_run, max_batch=4, context=64, default_tokens=4, deadline=5.0)
    yield schemathesis.openapi.from_url(f"{running.address}/openapi.json")
    running.stop()


def test_the_routes_are_these(schema):
    found = {(op.ok().method.upper(), op.ok().path) for op in schema.get_all_operations()}
    assert found == set(ROUTES)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize(("method", "path"), ROUTES[:2], ids=lambda word: word)
def test_a_route_answers_as_its_schema_says(schema, method, path, mode):
    statuses = set()

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def asked(case):
        answer = case.call()
        statuses.add(answer.status_code)
        # How long a prompt may be and which tokens there are is the model's matter, not the schema's.
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    asked()
    assert statuses <= {200, 400, 404, 413}, statuses
