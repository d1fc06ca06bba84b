"""The selective scan: its contract in every backend."""

from functools import partial

import pytest

from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op

ALONG_TIME = ("u", "dt", "B", "C", "z")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_contract(backend, softplus, check):
    examples = partial(inputs, softplus=softplus)
    check_op(
        selective_scan,
        [backend],
        examples,
        along_time=ALONG_TIME,
        options={"softplus": softplus},
        checks=[check],
    )
