"""The contract check must catch what it is for: each mixer here breaks one rule."""

import pytest
import torch
from torch import nn

from hippodrome.mixers.min_gru import MinGRU
from hippodrome.testing.mixers import check_mixer


class ForgetsItsState(MinGRU):
    def forward(self, x, state=None, *, resets=None, dt=None):
        self.check_call(x, state, resets, dt)
        return super().forward(x, None, resets=resets)


class LooksAhead(MinGRU):
    def forward(self, x, state=None, *, resets=None, dt=None):
        y, state = super().forward(x, state, resets=resets, dt=dt)
        return y + 1e-6 * x.flip(1), state


class ReturnsAnOldState(MinGRU):
    def forward(self, x, state=None, *, resets=None, dt=None):
        y, last = super().forward(x, state, resets=resets, dt=dt)
        return y, last._replace(h=last.h * (1 + 1e-7))


class IgnoresResets(MinGRU):
    def forward(self, x, state=None, *, resets=None, dt=None):
        return super().forward(x, state, dt=dt)


class MixesRows(MinGRU):
    def project(self, x):
        mean = x.mean(0, keepdim=True)
        return x + 1e-6 * mean, x


class MutatesInStep(MinGRU):
    def step(self, x_t, state, *, dt_t=None):
        y_t, after = super().step(x_t, state, dt_t=dt_t)
        state.h.mul_(0.5)
        return y_t, after


class AdvancesWrongly(MinGRU):
    def advance_(self, x_t, state, *, dt_t=None):
        return self.step(x_t, state, dt_t=dt_t)[0]


class AcceptsDtInVain(MinGRU):
    accepts_dt = True


class SwallowsDt(MinGRU):
    def refuse_dt(self, dt):
        return


class TakesEmptySequences(MinGRU):
    def check_call(self, x, state, resets=None, dt=None):
        self.refuse_dt(dt)


class HoldsAnIdleParameter(MinGRU):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.idle = nn.Parameter(torch.ones(3))


class HidesAGradient(MinGRU):
    def readout(self, h, side):
        return super().readout(h, side).detach() + 0 * h.sum(-1, keepdim=True)


class KeepsAFloatState(MinGRU):
    def init_state(self, batch, max_length=None):
        return super().init_state(batch, max_length)._replace(h=torch.zeros(batch, self.d_state))


class PutsTheBatchLast(MinGRU):
    def init_state(self, batch, max_length=None):
        state = super().init_state(batch, max_length)
        return state._replace(h=state.h.T)


BROKEN = {
    ForgetsItsState: "forward's state",
    LooksAhead: "before a changed token",
    ReturnsAnOldState: "last state",
    IgnoresResets: "resets",
    MixesRows: "rows beside",
    MutatesInStep: "belongs to the caller",
    AdvancesWrongly: "advance_",
    AcceptsDtInVain: "dt = 2 changes nothing",
    SwallowsDt: "should be refused",
    TakesEmptySequences: "should be refused|no tokens",
    HoldsAnIdleParameter: "idle gets no gradient",
    HidesAGradient: "gradient",
    KeepsAFloatState: r"stays torch\.float32",
    PutsTheBatchLast: "not batch first",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__)
def test_a_broken_mixer_is_caught(broken: type[MinGRU]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_mixer(broken(8))


def test_a_sound_mixer_passes() -> None:
    check_mixer(MinGRU(8))
