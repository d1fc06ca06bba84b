"""Definition of the block transform: its whole matrix, entry by entry from the digits, in float64."""

import math
from itertools import product

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def block_fft(x: Tensor, matrices: tuple[Tensor, ...], inverse: bool) -> Tensor:
    """Arguments as at the door."""
    n = x.shape[1]
    sizes = [m.shape[0] for m in matrices]
    wide = [torch.view_as_complex(m.double().contiguous()) for m in matrices]
    rows = []
    for row in range(n):
        entries = []
        for digits in product(*(range(m) for m in sizes)):
            column, k, value, length = 0, row, x.new_ones((), dtype=torch.complex128), n
            for m, digit in zip(sizes, digits, strict=True):
                column = column * m + digit
            rest = column
            for matrix, m, digit in zip(wide, sizes, digits, strict=True):
                place, k = k % m, k // m
                rest %= length // m
                angle = 2 * math.pi * place * rest / length * (1 if inverse else -1)
                value = value * matrix[place, digit] * complex(math.cos(angle), math.sin(angle))
                length //= m
            entries.append(value)
        rows.append(torch.stack(entries))
    whole = torch.stack(rows) / (n if inverse else 1)
    y = torch.einsum("kj,bjd->bkd", whole, torch.view_as_complex(x.double().contiguous()))
    return torch.view_as_real(y).to(torch.promote_types(x.dtype, torch.float32))
