"""The contract, held against every mixer that the folder holds."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hippodrome.mixers
from hippodrome.mixers.base import Mixer
from hippodrome.testing.mixers import (
    EPS,
    check_forward,
    check_mixer,
    check_resets,
    prepared,
    tokens,
    warm_state,
)

FOLDER = Path(hippodrome.mixers.__file__).parent
KINDS = sorted(f.stem for f in FOLDER.glob("*.py") if not f.stem.startswith("_") and f.stem != "base")
LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65]


def mixer_class(kind: str) -> type[Mixer]:
    module = importlib.import_module(f"hippodrome.mixers.{kind}")
    (found,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Mixer) and value.__module__ == module.__name__
    )
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_contract(kind: str) -> None:
    check_mixer(mixer_class(kind).example())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_lengths_chunks_and_resets(kind: str, data: st.DataObject) -> None:
    mixer = mixer_class(kind).example()
    length = data.draw(st.sampled_from(LENGTHS), label="length")
    places = st.integers(0, length - 1)
    splits = data.draw(st.lists(places, max_size=5), label="splits")
    rows = data.draw(st.lists(st.lists(places, max_size=4), min_size=3, max_size=3), label="resets")
    resets = torch.zeros(3, length, dtype=torch.bool)
    for b, marks in enumerate(rows):
        resets[b, marks] = True
    dtype = data.draw(st.sampled_from(list(EPS)), label="dtype")
    check_forward(mixer, length, splits=splits, resets=resets, dtype=dtype)
    check_resets(mixer, length, rows)


def test_meta_device(kind: str) -> None:
    with torch.device("meta"):
        mixer = mixer_class(kind).example()
    assert all(p.is_meta for p in mixer.parameters())


def test_bfloat16_weights(kind: str) -> None:
    mixer = mixer_class(kind).example().bfloat16()
    x = tokens(mixer, 2, 6, torch.bfloat16)
    y, state = mixer(x)
    y_t, after = mixer.step(x[:, 0], state)
    assert y.dtype == y_t.dtype == torch.bfloat16
    assert y.isfinite().all()
    assert y_t.isfinite().all()
    assert_wide(mixer.init_state(2), state, after)


@torch.no_grad()
def test_states_stay_in_float32_under_autocast(kind: str) -> None:
    mixer = mixer_class(kind).example()
    x = tokens(mixer, 2, 6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = mixer(x)
        _, after = mixer.step(x[:, 0], state)
    assert_wide(state, after)


def assert_wide(*states: Any) -> None:
    """All that is summed into is float32; keys and values of attention are stored and never summed into."""
    for state in states:
        for name, tensor in zip(state._fields, state, strict=True):
            assert name in ("k", "v") or tensor.dtype != torch.bfloat16, name


def test_a_row_of_nothing_but_padding_is_finite_and_changes_no_other(kind: str) -> None:
    mixer = prepared(mixer_class(kind).example())
    x = tokens(mixer, 2, 6)
    x[0] = 0
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[0] = mixer.accepts_resets
    x.requires_grad_()
    y, state = mixer(x, resets=resets if mixer.accepts_resets else None)
    assert all(bool(tensor.isfinite().all()) for tensor in (y, *state))
    y.sum().backward()
    gradients = [x.grad, *(p.grad for p in mixer.parameters() if p.grad is not None)]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    torch.testing.assert_close(y[1:], mixer(x[1:])[0], atol=1e-9, rtol=1e-9)


def test_example_is_small(kind: str) -> None:
    mixer = mixer_class(kind).example()
    assert sum(p.numel() for p in mixer.parameters()) < 20_000
    assert mixer.d_model <= 16


def test_what_is_saved_has_memory_of_its_own(kind: str) -> None:
    """Formats of weights refuse tensors that share memory with others."""
    for name, tensor in mixer_class(kind).example().state_dict().items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, f"{name} is a part of something larger."


def test_parameter_groups_hold_own_parameters_once(kind: str) -> None:
    mixer = mixer_class(kind).example()
    own = {id(p) for p in mixer.parameters()}
    grouped = [id(p) for group in mixer.parameter_groups() for p in group.parameters]
    assert set(grouped) <= own
    assert len(grouped) == len(set(grouped))


@pytest.mark.compiled
def test_compiles_whole(kind: str) -> None:
    mixer = prepared(mixer_class(kind).example(), torch.float32)
    x = tokens(mixer, 2, 3, torch.float32)
    state = warm_state(mixer, 2, torch.float32)
    resets = torch.tensor([[False, False, False], [False, True, False]])
    torch.compiler.reset()
    forward = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    step = torch.compile(mixer.step, fullgraph=True, backend="aot_eager")
    y = forward(x)[0]
    torch.testing.assert_close(y, mixer(x)[0])
    y.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(forward(x, state, resets=resets)[0], mixer(x, state, resets=resets)[0])
        torch.testing.assert_close(step(x[:, 0], state)[0], mixer.step(x[:, 0], state)[0])
