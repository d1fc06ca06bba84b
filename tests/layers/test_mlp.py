"""The gated perceptron against its formula."""

import torch
import torch.nn.functional as F

from hippodrome.layers.mlp import GatedMLP


def test_is_its_formula() -> None:
    mlp = GatedMLP(4, 6).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    value, gate = mlp.fc1.weight.chunk(2)
    expected = ((x @ value.T) * F.silu(x @ gate.T)) @ mlp.fc2.weight.T
    torch.testing.assert_close(mlp(x), expected)


def test_default_width_costs_as_much_as_an_ungated_one() -> None:
    for width in (96, 768):
        count = sum(p.numel() for p in GatedMLP(width).parameters())
        assert abs(count / (8 * width**2) - 1) < 0.01
        assert GatedMLP(width).fc2.in_features % 8 == 0


def test_biases_are_of_both_maps() -> None:
    mlp = GatedMLP(4, 6, bias=True).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    value, gate = (x @ mlp.fc1.weight.T + mlp.fc1.bias).chunk(2, -1)
    torch.testing.assert_close(mlp(x), (value * F.silu(gate)) @ mlp.fc2.weight.T + mlp.fc2.bias)
