"""The complex linear scan: its contract in every backend."""

import pytest

from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.ops.linear_scan_complex.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract(backend, check):
    check_op(linear_scan_complex, [backend], inputs, along_time=("a", "x"), checks=[check])
