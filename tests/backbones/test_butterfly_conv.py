"""The convolution through a learned transform: a long convolution at first, a map of whole rows later."""

import pytest
import torch

from hippodrome.backbones.butterfly_conv import ButterflyConv
from hippodrome.ops.block_conv import block_conv
from hippodrome.testing.mixers import check_noncausal
from hippodrome.testing.ops import close


def exact(mixer: ButterflyConv) -> ButterflyConv:
    """Fourier matrices in float64, where the first values were rounded to float32; no output map."""
    mixer = mixer.double()
    mixer.output = torch.nn.Identity()
    with torch.no_grad():
        for transform in (mixer.of_kernel, mixer.of_input):
            for name, matrix in transform.matrices.items():
                matrix.copy_(torch.view_as_real(torch.fft.fft(torch.eye(int(name), dtype=torch.complex128))))
    return mixer


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("t", [1, 13, 20])
def test_at_first_it_is_the_fourier_convolution(bidirectional, t):
    mixer = exact(ButterflyConv(3, 20, bidirectional=bidirectional))
    x = torch.randn(2, t, 3, dtype=torch.float64)
    taps = torch.nn.functional.softshrink(mixer.K, 0.001)
    y, _ = block_conv(x, taps[0], None, taps[1] if bidirectional else None)
    close(mixer(x)[0], (y + mixer.D * x).detach(), 1e-10, "convolution")


def test_learned_matrices_let_every_output_see_every_token():
    mixer = exact(ButterflyConv(2, 8, bidirectional=False))
    x = torch.randn(1, 8, 2, dtype=torch.float64)
    later = x.clone()
    later[:, -1] += 1
    assert (mixer(x)[0] - mixer(later)[0])[:, :-1].abs().max() < 1e-12
    with torch.no_grad():
        for matrix in mixer.of_input.matrices.values():
            matrix.add_(0.1 * torch.randn_like(matrix))
    assert (mixer(x)[0] - mixer(later)[0])[:, :-1].abs().max() > 1e-6


@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"additive": True}])
def test_keeps_what_is_left_of_the_contract(options):
    check_noncausal(ButterflyConv(6, 16, **options), 13, packed=False)


def test_kernels_and_matrices_train_slowly():
    mixer = ButterflyConv.example()
    (group,) = mixer.parameter_groups()
    assert len(group.parameters) == 1 + 2 * 2
    assert group.max_lr == 1e-3


def test_rows_that_do_not_fit_are_refused():
    mixer = ButterflyConv.example()
    with pytest.raises(ValueError, match="at most max_length = 16 tokens and no resets; got 17"):
        mixer(torch.randn(1, 17, 6))
    with pytest.raises(ValueError, match="and resets"):
        mixer(torch.randn(1, 8, 6), resets=torch.zeros(1, 8, dtype=torch.bool))
