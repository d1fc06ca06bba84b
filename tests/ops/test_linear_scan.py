"""The linear scan: its contract in every backend."""

import pytest

from hippodrome.ops.linear_scan import linear_scan
from hippodrome.ops.linear_scan.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_contract(backend, check):
    check_op(linear_scan, [backend], inputs, along_time=("a", "x"), checks=[check])
