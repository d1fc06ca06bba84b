"""Products with Hankel matrices by Fourier transforms, and maps that are sums of such products."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def hankel_product(h: Float[Tensor, "*p k"], x: Float[Tensor, "*b n"]) -> Float[Tensor, "*y m"]:
    """y_i = sum_j h_{i+j} x_j, i = 0 .. m - 1, in O(n log n): the matrix is the k = n + m - 1 numbers h.

    A Hankel matrix is a Toeplitz matrix times the reversal of the order, so y is a stretch of the convolution
    of h with x reversed (Golub, Van Loan 2013, "Matrix computations", section 4.8). Transforms of 2n points
    (2m where there are more outputs) are long enough that nothing wraps around into it.

    Args:
        h: of one matrix or several, in float32 or wider.
        x: vectors; leading axes of both are broadcast.

    Raises:
        ValueError: fewer numbers h than x has.
    """
    n, m = x.shape[-1], h.shape[-1] - x.shape[-1] + 1
    if m < 1:
        raise ValueError(
            f"A Hankel matrix over {n} numbers is made of {n} or more, one for each antidiagonal, 2n - 1 "
            f"where it is square; got {h.shape[-1]}. Give as many."
        )
    points = 2 * max(n, m)
    spectrum = torch.fft.rfft(h, points) * torch.fft.rfft(x.flip(-1), points)
    return torch.fft.irfft(spectrum, points)[..., n - 1 : n - 1 + m]


def hankel_matrix(h: Float[Tensor, "*p k"], n: int) -> Float[Tensor, "*p m n"]:
    """The matrix itself, h_{i+j}, over n numbers: to look at, and to check against."""
    return h.unfold(-1, n, 1)


class HankelMap(nn.Module):
    """sum_q D_q H_q E_q x + bias: an m x n map of p (2m + 2n - 1) + m numbers, D, E diagonal, H Hankel.

    At first D and E are signs drawn at random, so that the entries of the map are uncorrelated, and H normal
    numbers of such a size that outputs are about as large as inputs.

    Args:
        n: numbers in.
        m: numbers out.
        factors: p, how many such products are added.

    Raises:
        ValueError: a size or factors below one.
    """

    def __init__(self, n: int, m: int, factors: int = 2) -> None:
        super().__init__()
        if min(n, m, factors) < 1:
            raise ValueError(
                f"A Hankel map has one number in, one out and one factor at least; got {n}, {m} and "
                f"{factors}. Correct the smallest."
            )
        self.left = nn.Parameter(torch.randint(2, (factors, m)) * 2.0 - 1.0)
        self.right = nn.Parameter(torch.randint(2, (factors, n)) * 2.0 - 1.0)
        self.h = nn.Parameter(torch.randn(factors, n + m - 1) / (factors * n) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(m))

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """Each row on its own; the sum is taken in float32 or wider, whatever x is stored in.

        Few rows go by Fourier transforms, whose work is the least. Rows as many as numbers in or more, as in
        training, share one dense matrix: a matrix product does more arithmetic in less time.
        """
        wide = torch.promote_types(torch.promote_types(x.dtype, self.h.dtype), torch.float32)
        left, right, h, bias = (part.to(wide) for part in (self.left, self.right, self.h, self.bias))
        n = right.shape[-1]
        if x.numel() >= n * n:
            with torch.autocast(x.device.type, enabled=False):
                return (x.to(wide) @ self.matrix().to(wide).mT + bias).to(x.dtype)
        parts = left * hankel_product(h, right * x.to(wide)[..., None, :])
        return (parts.sum(-2) + bias).to(x.dtype)

    def matrix(self) -> Float[Tensor, "m n"]:
        """The map as one dense matrix, without its bias."""
        inner = hankel_matrix(self.h, self.right.shape[-1])
        return (self.left[..., None] * inner * self.right[:, None]).sum(0)
