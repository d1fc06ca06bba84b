"""Timing and memory: what is held at once, what is skipped, and who is faster from where on."""

import torch
from torch import Tensor, nn

from hippodrome.analyze import timing
from hippodrome.config import build, stack_spec

CPU = torch.device("cpu")


def test_peak_counts_what_is_held_at_once_and_not_what_was_freed() -> None:
    def call() -> None:
        for _ in range(3):
            x = torch.empty(1000, dtype=torch.float32)
            y = torch.empty(500, dtype=torch.float64)
            del x, y

    assert timing.peak_bytes(call, CPU) == 8000


def test_peak_of_a_training_step_holds_the_gradients_and_leaves_none() -> None:
    model = build({"kind": "language", "vocab_size": 256, "backbone": stack_spec("gru", 32, 1)})
    batch = model.example_batch()
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert timing.training_step_bytes(model, batch) > weights
    assert all(p.grad is None for p in model.parameters())


def test_memory_of_a_forward_pass_grows_with_length() -> None:
    stack = build(stack_spec("gru", 8, 1), "backbones")
    found = timing.scaling(stack, [16, 64], repeats=1)
    assert found.lengths == (16, 64)
    assert found.forward_bytes[1] > 2 * found.forward_bytes[0] > 0
    assert all(s > 0 for s in (*found.forward_seconds, *found.step_seconds))


def test_a_length_that_would_take_too_long_is_skipped_and_all_beyond_it() -> None:
    stack = build(stack_spec("gru", 8, 1), "backbones")
    found = timing.scaling(stack, [16, 512, 8192], repeats=1, seconds_each=1e-9)
    assert found.forward_seconds[0] is not None
    assert found.forward_seconds[1:] == (None, None)


def _scaling(*seconds: float | None) -> timing.Scaling:
    lengths = tuple(2**i for i in range(len(seconds)))
    return timing.Scaling(lengths, seconds, (0,) * len(seconds), seconds)


def test_faster_from_is_the_length_after_the_last_loss() -> None:
    rival = _scaling(1, 2, 4, 8, None)
    assert timing.faster_from(_scaling(2, 3, 3.5, 4, 5), rival) == 4
    assert timing.faster_from(_scaling(0.5, 3, 3.5, 4, 5), rival) == 4
    assert timing.faster_from(_scaling(0.5, 1, 1, 1, 1), rival) == 1
    assert timing.faster_from(_scaling(2, 3, 5, 9, None), rival) is None
    assert timing.faster_from(_scaling(0.5, 1, 1, None, None), rival) is None


def test_seconds_of_takes_the_median_of_what_fits() -> None:
    calls: list[int] = []
    assert timing.seconds_of(lambda: calls.append(1), CPU, repeats=4) >= 0
    assert len(calls) == 5


class _Plain(nn.Module):
    """A module whose cost is known: one tensor twice the size of the input."""

    causal, d_model = False, 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x])


def test_what_is_not_causal_has_no_step() -> None:
    found = timing.scaling(_Plain(), [8], repeats=1)
    assert found.step_seconds == (None,)
    assert found.forward_bytes == (2 * 8 * 4 * 4,)
