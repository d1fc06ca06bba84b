"""Mixture-of-Mamba: equal copies are Mamba, a copy serves its own tokens, and each split is separate."""

import pytest
import torch
from torch import Tensor

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.modal_projection import ModalProjection, by_modality
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.testing.mixers import BySign, check_forward, check_gradients, prepared

PARTS = ("in_proj", "x_proj", "dt_proj", "out_proj")


def example(**options: bool) -> tuple[MixtureOfMamba, Tensor, Tensor]:
    torch.manual_seed(0)
    mixer = MixtureOfMamba(8, modalities=3, d_state=4, **options).double()
    return mixer, torch.randn(2, 11, 8, dtype=torch.float64), torch.randint(3, (2, 11))


def test_with_equal_copies_it_is_mamba() -> None:
    mixer, x, modality = example()
    plain = prepared(Mamba(8, d_state=4))
    for name, tensor in plain.state_dict().items():
        part, _, rest = name.partition(".")
        for m in range(3) if part in PARTS else [None]:
            mine = name if m is None else f"{part}.{m}.{rest}"
            mixer.get_parameter(mine).data.copy_(tensor)
    dt = 0.5 + torch.rand(2, 11, dtype=torch.float64)
    for named in ({}, {"dt": dt}):
        y, state = plain(x, **named)
        mine, after = mixer(x, modality=modality, **named)
        torch.testing.assert_close(mine, y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after.h, state.h, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_each_projection_is_split_by_itself(part: str) -> None:
    options = {f"split_{p.removesuffix('_proj')}": p == part for p in PARTS}
    mixer, x, modality = example(**options)
    copies = {p: len(getattr(mixer, p)) for p in PARTS}
    assert copies == {p: 3 if p == part else 1 for p in PARTS}
    y, _ = mixer(x, modality=modality)
    other, _ = mixer(x, modality=(modality + 1) % 3)
    assert not torch.allclose(y, other)
    mixed = BySign(MixtureOfMamba(8, d_state=4, **options))
    check_forward(mixed, 9, splits=(4,), with_dt=True)
    check_gradients(mixed, 9)


def test_a_changed_copy_is_seen_from_its_first_token_on() -> None:
    mixer, x, modality = example()
    modality[:] = 0
    modality[0, 4:6] = modality[1, 7] = 2
    y, _ = mixer(x, modality=modality)
    with torch.no_grad():
        for part in PARTS:
            mixer.get_parameter(f"{part}.2.weight").add_(1.0)
    changed, _ = mixer(x, modality=modality)
    assert torch.equal(changed[0, :4], y[0, :4])
    assert torch.equal(changed[1, :7], y[1, :7])
    assert not torch.allclose(changed[0, 4:], y[0, 4:])
    assert not torch.allclose(changed[1, 7:], y[1, 7:])


def test_a_modality_that_does_not_occur_gets_no_gradient() -> None:
    mixer, x, modality = example()
    modality[modality == 1] = 2
    mixer(x, modality=modality)[0].sum().backward()
    for part in PARTS:
        grads = [mixer.get_parameter(f"{part}.{m}.weight").grad for m in range(3)]
        assert grads[1] is None or not grads[1].any()
        assert all(g is not None and g.any() for g in (grads[0], grads[2]))


def test_parameters_grow_by_the_four_projections() -> None:
    def count(m: int) -> int:
        return sum(p.numel() for p in MixtureOfMamba(16, modalities=m).parameters())

    plain = Mamba(16)
    four = sum(p.numel() for part in PARTS for p in getattr(plain, part).parameters())
    assert count(1) == sum(p.numel() for p in plain.parameters())
    assert count(3) == count(1) + 2 * four


def test_sorted_products_are_those_of_a_loop_and_differentiate_twice() -> None:
    torch.manual_seed(1)
    layer = ModalProjection(3, 2, 3).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    kind = torch.tensor([[2, 0, 2, 2, 0], [1, 2, 0, 0, 1]])
    pairs = zip(x.flatten(0, 1), kind.flatten().tolist(), strict=True)
    loop = torch.stack([layer[m](row) for row, m in pairs]).view(2, 5, 2)
    torch.testing.assert_close(layer(x, kind), loop)
    assert torch.autograd.gradcheck(lambda x: layer(x, kind).square(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: layer(x, kind).square(), (x,))


def test_a_stack_hands_modalities_to_those_that_take_them() -> None:
    torch.manual_seed(2)
    stack = Stack([Block(MixtureOfMamba(8, d_state=4)), Block(MinGRU(8))]).double()
    x, modality = torch.randn(2, 6, 8, dtype=torch.float64), torch.randint(2, (2, 6))
    y, _ = stack(x, modality=modality)
    assert stack.accepts_modality
    assert not torch.allclose(y, stack(x)[0])
    for step in (stack.step, None):
        state, found = stack.init_state(2), []
        for t in range(6):
            if step is not None:
                y_t, state = step(x[:, t], state, modality_t=modality[:, t])
            else:
                with torch.no_grad():
                    y_t = stack.advance_(x[:, t], state, modality_t=modality[:, t])
            found.append(y_t)
        torch.testing.assert_close(torch.stack(found, 1), y)
    again = Stack([Block(MixtureOfMamba(8, d_state=4)), Block(MinGRU(8))], recompute=True).double()
    again.load_state_dict(stack.state_dict())
    torch.testing.assert_close(again(x, modality=modality)[0], y)


def test_both_directions_are_told() -> None:
    torch.manual_seed(3)
    both = Bidirectional(MixtureOfMamba(8, d_state=4), MixtureOfMamba(8, d_state=4)).double()
    x, modality = torch.randn(2, 6, 8, dtype=torch.float64), torch.randint(2, (2, 6))
    y = both(x, modality=modality)[0]
    back = both.back(x.flip(1), modality=modality.flip(1))[0].flip(1)
    ahead = both.ahead(x, modality=modality)[0]
    back = torch.cat([back[:, 1:], torch.zeros_like(back[:, :1])], 1)
    torch.testing.assert_close(y, ahead + back)


@pytest.mark.parametrize(
    ("modality", "words"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), "a whole number for each token"),
        (torch.zeros(2, 11), "a whole number for each token"),
        (torch.full((2, 11), 3), "from 0 to 2"),
        (torch.full((2, 11), -1), "from 0 to 2"),
    ],
)
def test_modalities_that_cannot_be_meant_are_refused(modality: Tensor, words: str) -> None:
    mixer, x, _ = example()
    with pytest.raises(ValueError, match=words):
        mixer(x, modality=modality)


def test_no_modality_is_refused() -> None:
    with pytest.raises(ValueError, match="one modality or more"):
        MixtureOfMamba(8, modalities=0)
    assert Mixer.accepts_modality is False
    assert by_modality(torch.ones(2, 3), None, [lambda x: x + 1]).eq(2).all()
