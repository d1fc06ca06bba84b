"""Models built without drawing their weights: what no file holds is as in a model built as always."""

import pytest
import torch
from torch import Tensor, nn

from hippodrome.config import unfilled
from hippodrome.config.find import choices, find
from hippodrome.config.unfilled import Unfilled


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that no state_dict holds: buffers, and what a module keeps beside them."""
    found = {}
    for name, module in model.named_modules():
        kept = {k: v for k, v in module._buffers.items() if k in module._non_persistent_buffers_set}
        plain = {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
        found |= {f"{name}.{k}": v for k, v in {**kept, **plain}.items() if v is not None}
    return found


@pytest.mark.parametrize("kind", choices("mixers"))
def test_what_no_file_holds_is_made_as_always(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = unsaved(find("mixers", kind).example())
    monkeypatch.setattr(unfilled, "SMALL", -1)  # every tensor is left as it is, however small
    torch.manual_seed(0)
    with Unfilled():
        got = unsaved(find("mixers", kind).example())
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_large_weights_are_not_drawn_and_small_ones_are() -> None:
    before = torch.get_rng_state()
    with Unfilled():
        nn.Linear(256, 256, bias=False)
    assert torch.equal(torch.get_rng_state(), before)
    with Unfilled():
        assert nn.Linear(8, 8).weight.std() > 0
    assert not torch.equal(torch.get_rng_state(), before)
