"""Arithmetic of complex numbers held as real tensors with a trailing axis of 2."""

import torch
from torch import Tensor


def times(a: Tensor, b: Tensor) -> Tensor:
    """The complex product a b; both (..., 2), broadcast against each other."""
    a_re, a_im = a[..., 0], a[..., 1]
    b_re, b_im = b[..., 0], b[..., 1]
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


def over(a: Tensor, b: Tensor) -> Tensor:
    """The complex quotient a / b; both (..., 2), broadcast against each other, b not zero."""
    conjugate = torch.stack([b[..., 0], -b[..., 1]], -1)
    return times(a, conjugate) / b.square().sum(-1, keepdim=True)


def exp(z: Tensor) -> Tensor:
    """exp(z), (..., 2)."""
    return torch.exp(z[..., :1]) * torch.stack([torch.cos(z[..., 1]), torch.sin(z[..., 1])], -1)


def expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 with no cancellation near z = 0, (..., 2)."""
    x, y = z[..., 0], z[..., 1]
    half = torch.sin(0.5 * y)
    return torch.stack([torch.expm1(x) * torch.cos(y) - 2 * half * half, torch.exp(x) * torch.sin(y)], -1)
