"""The diagonal time-invariant system: its contract in every backend, closed forms, and what float32 must keep."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.diagonal_lti import BACKENDS, diagonal_lti
from hippodrome.ops.diagonal_lti.examples import inputs
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.testing.ops import CHECKS, check_op, close

NAMES = [backend.NAME for backend in BACKENDS]
FAST = [name for name in NAMES if name != "reference"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, check):
    check_op(diagonal_lti, [backend], inputs, along_time=("u",), checks=[check])
