"""Fixtures shared by all tests: shape checks, deterministic seeds, and where the measurement data lies."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shapes are checked in the test run only, and never in the sessions that compile (dynamo cannot follow them).
if os.environ.get("JAXTYPING_DISABLE", "0") not in ("1", "true", "True"):
    _manager = install_import_hook("hippodrome", "beartype.beartype")
    # Jitted kernels take no annotations and must stay plain functions: Numba and Triton read their source.
    _manager.hook.should_instrument = lambda name: (  # type: ignore[method-assign]
        name.split(".")[0] == "hippodrome" and not name.endswith("_kernel")
    )

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real measurement data beside the checkout; skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"the measurement data is not beside this checkout ({DATA} is absent)")
    return DATA
