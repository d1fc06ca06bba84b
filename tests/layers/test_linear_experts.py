"""The dense mixture of linear maps: its weights, and what it is where its experts are alike."""

import pytest
import torch

from hippodrome.layers.linear_experts import LinearExperts


def test_weights_of_the_experts_are_positive_and_add_up_to_one() -> None:
    layer = LinearExperts(5, 3, 4).double()
    gates = layer.gates(10 * torch.randn(2, 7, 5, dtype=torch.float64))
    assert gates.shape == (2, 7, 4)
    assert bool((gates > 0).all())
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_experts_that_are_alike_are_one_linear_map() -> None:
    layer = LinearExperts(5, 3, 4).double()
    with torch.no_grad():
        layer.weight.copy_(layer.weight[:1].expand(4, -1, -1))
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ layer.weight[0].T, rtol=1e-13, atol=1e-13)


def test_it_is_the_sum_over_experts_written_out() -> None:
    layer = LinearExperts(4, 4, 3).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    scores = torch.exp(x @ layer.gate.weight.T + layer.gate.bias)
    wanted = sum(
        (scores[:, k] / scores.sum(-1))[:, None] * (x @ layer.weight[k].T) for k in range(layer.experts)
    )
    torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)


def test_one_expert_has_no_gate_to_learn_and_none_is_refused() -> None:
    layer = LinearExperts(4, 2, 1)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert torch.equal(layer.gates(torch.randn(3, 4)), torch.ones(3, 1))
    with pytest.raises(ValueError, match="one expert at least; got 0"):
        LinearExperts(4, 2, 0)
