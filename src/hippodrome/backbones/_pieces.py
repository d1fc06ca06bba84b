"""The pieces of packed rows as something sees them that reads both ways: their ends, and the way back."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.ops.causal_conv import causal_conv


def last_of_piece(x: Float[Tensor, "b t d"], resets: Bool[Tensor, "b t"] | None) -> Bool[Tensor, "b t"]:
    """Whether a token is the last before a reset, or of its row."""
    after = torch.ones(x.shape[0], 1, dtype=torch.bool, device=x.device)
    inside = x.new_zeros(x.shape[0], x.shape[1] - 1, dtype=torch.bool) if resets is None else resets[:, 1:]
    return torch.cat([inside, after], 1)


def backwards(
    x: Float[Tensor, "b t d"], resets: Bool[Tensor, "b t"] | None, dt: Float[Tensor, "b t"] | None
) -> tuple[Bool[Tensor, "b t"] | None, Float[Tensor, "b t"] | None]:
    """The resets and time steps of the reversed row, in which a piece begins at its last token.

    ``dt`` is the time since the token before; for the reversed row that is the time to the token after, and
    at the last token of a piece its own.
    """
    if resets is None and dt is None:
        return None, None
    last = last_of_piece(x, resets)
    if dt is not None:
        dt = torch.where(last, dt, dt.roll(-1, 1)).flip(1)
    return None if resets is None else last.flip(1), dt


def shifted(x: Float[Tensor, "b t *rest"], resets: Bool[Tensor, "b t"] | None) -> Float[Tensor, "b t *rest"]:
    """Each token's place taken by the one before it, and by zeros at the first token of a piece."""
    x = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return x if resets is None else x.masked_fill(resets.view(*resets.shape, *[1] * (x.dim() - 2)), 0.0)


class CenteredConv(nn.Module):
    """y_t = bias + sum_k weight_k x_{t - (w - 1)/2 + k}, as many taps on later tokens as on earlier ones.

    No tap reaches out of the piece of its token. Parameters have the names, shapes and initial values of a
    depthwise ``torch.nn.Conv1d``: weight (d, 1, w), bias (d).

    Args:
        channels: d.
        taps: w, odd.

    Raises:
        ValueError: an even number of taps, which has no middle.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        if taps < 1 or taps % 2 == 0:
            raise ValueError(
                f"A convolution around each token has an odd number of taps; got {taps}. Take one more."
            )
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(
        self, x: Float[Tensor, "b t d"], resets: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """All tokens, (b, t, d) to the same."""
        taps, ahead = self.weight.squeeze(1), self.weight.shape[-1] // 2
        if resets is None:
            return causal_conv(F.pad(x, (0, 0, 0, ahead)), taps, self.bias)[0][:, ahead:]
        # The taps up to the token itself, then those on later tokens, which come first in reverse.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        y, _ = causal_conv(wide, taps[:, : ahead + 1], self.bias, None, resets)
        later = torch.cat([taps[:, ahead + 1 :].flip(1), torch.zeros_like(taps[:, :1])], 1)
        z, _ = causal_conv(wide.flip(1), later, None, None, last_of_piece(x, resets).flip(1))
        return (y + z.flip(1)).to(x.dtype)


def unpack(resets: Bool[Tensor, "b t"]) -> tuple[Int[Tensor, "pieces longest"], Int[Tensor, "pieces"]]:
    """Where the tokens of each piece lie in the flattened rows, and how many there are of them.

    Behind the end of a piece stands its last token again. The shape depends on the values of ``resets``.
    """
    b, t = resets.shape
    first = resets.clone()
    first[:, 0] = True
    starts = first.flatten().nonzero()[:, 0]
    lengths = torch.diff(starts, append=starts.new_tensor([b * t]))
    inside = torch.arange(int(lengths.max()), device=resets.device)
    return starts[:, None] + torch.minimum(inside, lengths[:, None] - 1), lengths
