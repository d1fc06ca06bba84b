"""The convolution with a state in plain PyTorch: one real Fourier transform over the whole input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.fft_conv.torch_ import fast_size

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def block_conv(
    x: Tensor,
    kernel: Tensor,
    initial_state: Tensor | None,
    back: Tensor | None,
    ahead: Tensor | None,
    block: int | None,
) -> Tensor:
    """Outputs; arguments as at the door. ``block`` changes nothing: there is one."""
    wide = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    past, later = kernel.shape[1] - 1, 0 if back is None else back.shape[1]
    taps = kernel if back is None else torch.cat([back.flip(1), kernel], 1)
    pieces = [x.to(wide)]
    if initial_state is not None:
        pieces.insert(0, initial_state.to(wide))
    if ahead is not None:
        pieces.append(ahead.to(wide))
    # Circular positions: an output stands as far behind its input's place as there are taps on later tokens.
    place = later + (0 if initial_state is None else past)
    points = fast_size(int(x.shape[1] + past + later))
    with torch.autocast(x.device.type, enabled=False):
        u = torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]
        spectrum = torch.fft.rfft(u.transpose(1, 2), points)
        y = torch.fft.irfft(spectrum * torch.fft.rfft(taps.to(wide), points), points)
    return y[..., place : place + x.shape[1]].transpose(1, 2).to(x.dtype)


def last_inputs(x: Tensor, before: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    """The last ``count`` inputs (b, count, d), in float32, ``dtype`` or that of x, whichever is widest."""
    wide = torch.promote_types(torch.promote_types(x.dtype, dtype), torch.float32)
    t = x.shape[1]
    if t >= count:
        return x[:, t - count :].to(wide, copy=True)
    if before is None:
        return F.pad(x.to(wide), (0, 0, count - t, 0))
    return torch.cat([before[:, before.shape[1] - (count - t) :].to(wide), x.to(wide)], 1)
