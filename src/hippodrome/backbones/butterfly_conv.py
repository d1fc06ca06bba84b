"""A long convolution through a learned transform in place of Fourier's, which reads a row as a whole."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.layers.butterfly import Butterfly
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.long_conv import initial_taps
from hippodrome.shapes import Resets, Sequence, TimeSteps


class ButterflyConv(NotCausal):
    """y = Re F^-1 (T_k k * T_x x) + D x with learned T_k and T_x, which are F at first; then GELU and a gate.

    FlashButterfly: Fu et al. 2023, "Simple hardware-efficient long convolutions for sequence modeling",
    arXiv 2302.06646, section 4, equation of the butterfly decomposition. F is the Fourier transform of N
    points, the power of two from 2 ``max_length`` on; both learned transforms have its shape
    (``layers.butterfly``), the inverse stays as it is, as in the authors' code. The kernel is squashed like
    that of ``long_conv``.

    While T = F this is the long convolution, with ``bidirectional`` over lags of both signs. Trained matrices
    make it a map of the whole row with no kernel of lags behind it, so every output may depend on every
    token: it has neither a state nor a step, whatever ``bidirectional`` says, and resets are refused.

    Args:
        d_model: channels in and out.
        max_length: the most tokens of a row, and taps of each kernel.
        squash: threshold of the kernel.
        init: "random" or "double_exp", as in ``long_conv``.
        kernel_dropout: share of taps set to zero in training.
        bidirectional: whether there is a second kernel for later tokens, from the next one on.
        additive: whether what is learned is added to the Fourier matrices (see ``layers.butterfly``).

    Raises:
        ValueError: an unknown init, or a kernel without taps.
    """

    accepts_resets = False
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        squash: float = 0.001,
        init: str = "double_exp",
        kernel_dropout: float = 0.0,
        bidirectional: bool = True,
        additive: bool = False,
    ) -> None:
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.squash, self.kernel_dropout = squash, kernel_dropout
        kernels = [initial_taps(d_model, max_length, init) for _ in range(2 if bidirectional else 1)]
        self.K = nn.Parameter(torch.stack(kernels))
        self.D = nn.Parameter(torch.randn(d_model))
        points = 1 << (2 * max_length - 1).bit_length()
        self.of_kernel, self.of_input = Butterfly(points, additive), Butterfly(points, additive)
        self.output = GatedOutput(d_model)

    def kernel(self) -> Float[Tensor, "d points"]:
        """The taps as they stand in the transform: lags from 0 on, those of later tokens from its end."""
        K = self.K.to(torch.promote_types(self.K.dtype, torch.float32))
        K = F.dropout(F.softshrink(K, self.squash), self.kernel_dropout, self.training)
        room = self.of_kernel.points - self.max_length
        line = F.pad(K[0], (0, room))
        return line + F.pad(K[1].flip(1), (room, 0)) if len(K) > 1 else line

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole row; the state handed back is empty.

        Raises:
            ValueError: a state, resets or dt is given, or the row is longer than ``max_length``.
        """
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        t = x.shape[1]
        if t > self.max_length or resets is not None:
            raise ValueError(
                f"ButterflyConv takes rows of at most max_length = {self.max_length} tokens and no resets; "
                f"got {t} tokens{'' if resets is None else ' and resets'}. Set max_length, one piece a row."
            )
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(torch.promote_types(self.D.dtype, torch.float32))
            spectrum = self.of_input(F.pad(u, (0, 0, 0, self.of_input.points - t)))
            taps = self.of_kernel(self.kernel().mT[None])
            product = torch.view_as_complex(spectrum) * torch.view_as_complex(taps)
            y = torch.fft.ifft(product, dim=1).real[:, :t] + self.D.to(u.dtype) * u
        return self.output(y.to(x.dtype)), ()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Kernels and learned matrices: at most 1e-3, no decay."""
        slow = [self.K, *self.of_kernel.parameters(), *self.of_input.parameters()]
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "ButterflyConv":
        """A small instance for rows of at most 16 tokens."""
        return cls(6, 16)
