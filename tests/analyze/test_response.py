"""Impulse responses and spectra of mixers whose answers are known."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from hippodrome.analyze.portrait import poles, portrait
from hippodrome.analyze.response import impulse_response, spectrum
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.s4 import S4


class _State(NamedTuple):
    h: Tensor


class _Leaky(Mixer):
    """h_t = a h_{t-1} + x_t, y = h: each channel its own a, or a rotation of pairs of channels."""

    def __init__(self, a: list[float], rotate: float = 0.0, copies: int = 1) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.rotate, self.copies, self.d_model = rotate, copies, len(a)

    def init_state(self, batch: int, max_length: int | None = None) -> _State:
        return _State(torch.zeros(batch, self.copies, self.d_model, 2))

    def step(self, x_t: Tensor, state: _State, *, dt_t: Tensor | None = None) -> tuple[Tensor, _State]:
        angle = torch.tensor(self.rotate)
        re, im = state.h.unbind(-1)
        turned = torch.stack([re * angle.cos() - im * angle.sin(), re * angle.sin() + im * angle.cos()], -1)
        h = self.a[:, None] * turned
        h = torch.stack([h[..., 0] + x_t[:, None], h[..., 1]], -1)
        return h[..., 0].mean(1), _State(h)

    def forward(self, x: Tensor, state=None, *, resets=None, dt=None) -> tuple[Tensor, _State]:
        state = self.init_state(x.shape[0]) if state is None else state
        ys = []
        for x_t in x.unbind(1):
            y, state = self.step(x_t, state)
            ys.append(y)
        return torch.stack(ys, 1), state

    @classmethod
    def example(cls) -> "_Leaky":
        return cls([0.5, 0.25])


def test_the_response_of_a_decay_is_its_powers() -> None:
    found = impulse_response(_Leaky([0.5, 0.25]), 5, scale=2.0)
    powers = torch.tensor([0.5, 0.25]) ** torch.arange(5)[:, None]
    assert torch.allclose(found, 2 * powers)


@pytest.mark.parametrize("copies", [1, 600])
def test_the_spectrum_is_read_off_small_and_large_states(copies: int) -> None:
    found = spectrum(_Leaky([0.5, 0.25], rotate=0.3, copies=copies))
    assert found is not None
    sizes = found.norm(dim=-1).unique(sorted=True)
    assert torch.allclose(sizes[[0, -1]], torch.tensor([0.25, 0.5]), atol=1e-5)
    angles = torch.atan2(found[:, 1], found[:, 0]).abs()
    assert torch.allclose(angles, torch.full_like(angles, 0.3), atol=1e-5)


def test_pairs_that_mix_are_not_taken_for_eigenvalues() -> None:
    torch.manual_seed(0)
    small, large = S4(4, d_state=64), S4(20, d_state=64)  # 256 and 1280 numbers of state
    found = spectrum(small)
    assert found is not None
    assert float(found.norm(dim=-1).max()) < 1
    assert spectrum(large) is None
    read = poles(large, portrait(large))
    assert read is not None
    assert len(read) == 20 * 64
    assert float(read.norm(dim=-1).max()) < 1
