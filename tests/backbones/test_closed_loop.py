"""The closed loop: one call is chunks is steps, its filters are the published ones, patterns build it."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hippodrome import config
from hippodrome.backbones.closed_loop import ClosedLoop
from hippodrome.mixers.space_time import SpaceTime
from hippodrome.testing.ops import close


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_one_call_is_chunks_is_steps(data: st.DataObject) -> None:
    torch.manual_seed(0)
    model = ClosedLoop.example().double().eval()
    t = data.draw(st.integers(1, 17), label="t")
    places = st.integers(0, t - 1)
    x = torch.randn(3, t, 8, dtype=torch.float64)
    resets = torch.zeros(3, t, dtype=torch.bool)
    for row, marks in enumerate(data.draw(st.lists(st.lists(places, max_size=3), min_size=3, max_size=3))):
        resets[row, marks] = True
    with torch.no_grad():
        whole, last = model(x, resets=resets)
        state, own, out = model.init_state(3), model.init_state(3), []
        for i in range(t):
            state = model.reset_rows(state, resets[:, i])
            own = model.reset_rows(own, resets[:, i])
            y, state = model.step(x[:, i], state)
            close(model.advance_(x[:, i], own), y, 1e-12, "in place")
            out.append(y)
        close(whole, torch.stack(out, 1), 1e-9, "steps")
        cuts = sorted({0, t, *data.draw(st.lists(places, max_size=3), label="cuts")})
        cut, parts = None, []
        for a, b in pairwise(cuts):
            y, cut = model(x[:, a:b], cut, resets=resets[:, a:b])
            parts.append(y)
        close(torch.cat(parts, 1), whole, 1e-9, "chunks")
        more = torch.randn(3, 4, 8, dtype=torch.float64)
        for ended in (state, cut):
            close(model(more, ended)[0], model(more, last)[0], 1e-9, "what comes after")
            close(model.closed_loop(ended, 5)[0], model.closed_loop(last, 5)[0], 1e-9, "the loop after")


def test_filters_are_differences_and_residuals_of_moving_averages() -> None:
    torch.manual_seed(0)
    model = ClosedLoop(SpaceTime(16, 3, feedback=True, linear=False), None, True, 9).double()
    x = torch.randn(1, 40, 16, dtype=torch.float64)
    state = model.trace(x).inputs[0]
    for order in range(4):
        for channel in (order, 8 + order):
            expected = x[0, :, channel].diff(n=order)
            close(state[order:, channel], expected, 1e-10, f"order {order}")
    for channel in (4, 5, 6, 7, 12, 15):
        length = int((model.kernels[channel] != 0).sum())
        assert 4 <= length <= 9
        mean = x[0, :, channel].unfold(0, length, 1).mean(-1)
        close(state[length - 1 :, channel], x[0, length - 1 :, channel] - mean, 1e-6, f"window {length}")


def test_a_trace_is_the_run_that_it_traces() -> None:
    torch.manual_seed(0)
    model = ClosedLoop.example().double().eval()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    trace = model.trace(x)
    y, state = model(x)
    assert torch.equal(trace.outputs, y)
    assert torch.equal(trace.state.decoder.x, state.decoder.x)
    close(trace.predicted[:, -1], model.closed_loop(state, 1)[1][:, 0], 1e-12, "the next input")


def test_a_pattern_builds_it_with_the_decoder_as_the_last_layer() -> None:
    options = {"closed_loop": {"kernel_dim": 4, "differencing": True}, "s4d": {"d_state": 4}}
    spec = config.stack_spec("closed_loop:s4d", 8, 3, options=options)
    model = config.build({"kind": "closed_loop", **spec}, "backbones")
    assert model.encoder is not None
    assert len(model.encoder.blocks) == 2
    assert isinstance(model.encoder.norm, nn.Identity)
    assert model.decoder.a.shape == (8, 4)
    assert model.differencing
    alone = config.build(config.stack_spec("closed_loop:space_time", 8, 1), "backbones")
    assert alone.encoder is None
    with pytest.raises(ValueError, match="takes one pattern, of its encoder; got 2"):
        config.stack_spec("closed_loop:s4d:gru", 8, 2)
    with pytest.raises(ValueError, match="build it with feedback=True"):
        ClosedLoop(SpaceTime(8, 3))
