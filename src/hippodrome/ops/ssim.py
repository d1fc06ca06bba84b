"""Structural similarity of pictures: how alike they are in brightness, contrast and structure, by windows."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5
"""The window of the paper: a Gaussian of this deviation over so many pixels each way."""


def ssim(
    x: Float[Tensor, "*b i j c"], y: Float[Tensor, "*b i j c"], largest: float = 1.0
) -> Float[Tensor, "*b"]:
    """The mean structural similarity of pictures of values from 0 to ``largest``; 1 where they are the same.

    (2 m_x m_y + a) (2 s_xy + b) / ((m_x^2 + m_y^2 + a) (s_x^2 + s_y^2 + b)) with means, variances and
    covariance under a Gaussian window, a = (0.01 largest)^2, b = (0.03 largest)^2, averaged over all windows
    inside the picture and over colours (Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from
    error visibility to structural similarity", equation 13). Where a picture is smaller than 11 pixels the
    window is the largest odd one that fits. Computed in float64 where the device has it: variances are small
    differences, and convolutions of float32 are rounded to fewer places on some devices.

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != y.shape:
        raise ValueError(f"ssim compares pictures of one shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    i, j, c = x.shape[-3:]
    taps = min(WINDOW, *(size - 1 + size % 2 for size in (i, j)))
    place = torch.arange(taps, device=x.device, dtype=wide) - taps // 2
    line = torch.exp(-place.square() / (2 * DEVIATION**2))
    window = torch.outer(line, line) / line.sum() ** 2
    with torch.autocast(x.device.type, enabled=False):
        one, two = (z.to(wide).reshape(-1, i, j, c).movedim(-1, 1).reshape(-1, 1, i, j) for z in (x, y))
        moments = torch.cat([one, two, one * one, two * two, one * two], 1)
        means = F.conv2d(moments, window.expand(5, 1, taps, taps), groups=5)
        m_x, m_y, xx, yy, xy = means.unbind(1)
        a, b = (0.01 * largest) ** 2, (0.03 * largest) ** 2
        alike = (2 * m_x * m_y + a) * (2 * (xy - m_x * m_y) + b)
        size = (m_x.square() + m_y.square() + a) * (xx - m_x.square() + yy - m_y.square() + b)
        found = (alike / size).mean((-1, -2)).view(*x.shape[:-3], c).mean(-1)
    return found.to(torch.promote_types(x.dtype, torch.float32))
