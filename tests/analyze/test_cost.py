"""Counting: closed forms of arithmetic, bytes of state, and weights that are read."""

import math

import pytest
import torch
from torch import nn

from hippodrome.analyze import cost as counting
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.config import build, stack_spec
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.language import LanguageModel
from hippodrome.ops import linear_scan
from hippodrome.shapes import LabelledBatch


def language(pattern: str, width: int = 16, depth: int = 2, **options: object) -> LanguageModel:
    return build(
        {"kind": "language", "vocab_size": 32, "backbone": stack_spec(pattern, width, depth), **options}
    )


def test_products_and_elementwise_functions_count_by_hand() -> None:
    x, w = torch.randn(5, 7), torch.randn(7, 3)
    flops, unknown = counting.count_flops(lambda: ((x @ w).exp() * 2).sum())
    assert flops == 2 * 5 * 7 * 3 + 15 + 15 + 15
    assert unknown == ()


def test_copies_and_changes_of_shape_are_free() -> None:
    x = torch.randn(4, 6)
    assert counting.count_flops(lambda: x.t().contiguous().to(torch.float64).clone())[0] == 0


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_pairs_it_may_look_at(causal: bool) -> None:
    q = torch.randn(2, 3, 10, 4)
    flops, _ = counting.count_flops(
        lambda: nn.functional.scaled_dot_product_attention(q, q, q, is_causal=causal)
    )
    pairs = 55 if causal else 100
    assert flops == 2 * 3 * pairs * 2 * (4 + 4)


def test_a_real_fourier_transform_counts_half_of_a_complex_one() -> None:
    x = torch.randn(3, 64)
    real, _ = counting.count_flops(lambda: torch.fft.rfft(x))
    whole, _ = counting.count_flops(lambda: torch.fft.fft(x.to(torch.complex64)))
    assert whole == 3 * 5 * 64 * math.log2(64) == 2 * real


def test_our_own_operator_counts_what_its_door_says() -> None:
    a = torch.rand(2, 9, 5)
    flops, unknown = counting.count_flops(lambda: linear_scan.linear_scan(a, a, backend="numba"))
    assert flops == linear_scan.flops(b=2, t=9, d=5)
    assert unknown == ()


def test_cost_of_a_language_model() -> None:
    model = language("gru")
    batch = model.example_batch()
    found = counting.cost(model, batch, length=100)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.state_bytes == 2 * 16 * 4
    # Head and embedding are one matrix here, so all weights are read for each token.
    assert found.bytes_per_token == found.parameters * 4 + found.state_bytes
    assert found.uncounted == ()
    products = 2 * (found.parameters - 0)
    assert 0.9 * products < found.flops_per_token < 1.4 * products


def test_what_reads_later_tokens_carries_no_state() -> None:
    both = Bidirectional.example()
    model = ClassificationModel(both, ["a", "b"], channels=2)
    batch = LabelledBatch(torch.randn(2, 5, 2), torch.tensor([5, 3]), torch.tensor([0, 1]))
    found = counting.cost(model, batch)
    assert found.state_bytes is found.bytes_per_token is None
    assert found.flops_per_token > 0


def test_a_table_that_is_only_looked_up_is_read_by_the_row() -> None:
    tied, untied = language("gru"), language("gru", tie=False)
    assert counting.weight_bytes_read(untied) == counting.weight_bytes_read(tied) + 16 * 4
    assert counting.parameter_count(untied) == counting.parameter_count(tied) + 32 * 16


def test_cost_leaves_the_model_in_its_mode() -> None:
    model = language("gru").train()
    counting.cost(model, model.example_batch())
    assert model.training
