"""A learnable transform along time: the blocks of a Fourier transform, whose matrices are parameters."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.block_fft import block_fft, dft

LARGEST = 16
"""Points of the largest block."""


class Butterfly(nn.Module):
    """The block transform of so many points with learned matrices, at first those of the Fourier transform.

    Fu et al. 2023, "Simple hardware-efficient long convolutions for sequence modeling", arXiv 2302.06646,
    section 4. Blocks of one size share one matrix, and all channels share all. ``additive`` learns what is
    added to the Fourier matrices, from normal numbers of deviation 0.01, in place of the matrices.

    Args:
        points: steps of the transform, a power of two from 2 on.
        additive: whether the parameters are added to the Fourier matrices.

    Raises:
        ValueError: the points are no power of two.
    """

    def __init__(self, points: int, additive: bool = False) -> None:
        super().__init__()
        if points < 2 or points & (points - 1):
            raise ValueError(
                f"A butterfly transforms a power of two of steps, 2 or more; got {points}. Take "
                f"{1 << max(points - 1, 1).bit_length()} and pad with zeros."
            )
        self.points, self.additive = points, additive
        bits, most = points.bit_length() - 1, LARGEST.bit_length() - 1
        self.sizes = [LARGEST] * (bits // most) + ([1 << bits % most] if bits % most else [])
        self.matrices = nn.ParameterDict(
            {
                str(m): nn.Parameter(0.01 * torch.randn(m, m, 2) if additive else dft(m))
                for m in sorted(set(self.sizes))
            }
        )

    def forward(self, x: Float[Tensor, "b n d"] | Float[Tensor, "b n d 2"]) -> Float[Tensor, "b n d 2"]:
        """The transform of every channel along time, complex as pairs; x real, or complex as pairs."""
        wide = torch.promote_types(x.dtype, torch.float32)
        pairs = x.to(wide) if x.dim() == 4 else torch.stack([x.to(wide), torch.zeros_like(x, dtype=wide)], -1)
        return block_fft(pairs, [self.matrix(m) for m in self.sizes])

    def matrix(self, size: int) -> Float[Tensor, "m m 2"]:
        """The block of so many points, in float32 or wider."""
        learned = self.matrices[str(size)]
        learned = learned.to(torch.promote_types(learned.dtype, torch.float32))
        if not self.additive:
            return learned
        return learned + dft(size, dtype=learned.dtype).to(learned.device)
