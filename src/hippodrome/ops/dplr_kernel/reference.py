"""Definition of the kernel: the dense complex system, its step by a solve, its powers one after the other."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _both(x: Tensor) -> Tensor:
    half = torch.complex(x[..., 0].double(), x[..., 1].double())
    return torch.cat([half, half.conj()], -1)


def dplr_kernel(
    poles: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, step: Tensor, length: int
) -> Tensor:
    """Arguments as at the door."""
    A = torch.diag_embed(_both(poles)) - _both(P).mT @ _both(Q).conj()
    one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    half = 0.5 * step.double()[:, None, None] * A
    inverse = torch.linalg.inv(one - half)
    ahead = inverse @ (one + half)
    x = 2 * (0.5 * step.double())[:, None, None] * inverse @ _both(B)[..., None]
    whole = one
    for _ in range(length):
        whole = whole @ ahead
    row = torch.linalg.solve(one - whole, _both(C)[:, None], left=False)
    values = []
    for _ in range(length):
        values.append((row @ x)[:, 0, 0].real)
        x = ahead @ x
    return torch.stack(values, -1).to(C.dtype)
