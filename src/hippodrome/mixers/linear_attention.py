"""Linear attention: a matrix state that adds up outer products and forgets nothing."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.norm import RMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import NoConv
from hippodrome.mixers._matrix_state import Channels, Drive, MatrixState
from hippodrome.mixers.base import check_word
from hippodrome.ops.ssd import ssd
from hippodrome.shapes import Resets, Sequence

FEATURES = ("elu", "relu", "identity")
EPS = 1e-6
"""Added to the normalizer, which is zero where no feature of a query meets one of a key."""


class LinearAttention(MatrixState):
    """S_t = S_{t-1} + v_t phi(k_t)^T, z_t = z_{t-1} + phi(k_t); o_t = S_t phi(q_t) / (z_t . phi(q_t)) in each
    head; out_proj(o).

    Katharopoulos, Vyas, Pappas, Fleuret 2020, "Transformers are RNNs: fast autoregressive transformers with
    linear attention", arXiv 2006.16236, equations 16 to 20, with phi = elu + 1 as there. Without the
    normalizer a root-mean-square norm over each head stands in its place and queries are scaled by the root
    of their size, as in later work. The sums stay in float32 whatever autocast does.

    Args:
        d_model: channels in and out.
        heads: how many matrices.
        features: phi: "elu" for elu + 1, "relu", or "identity".
        normalize: whether outputs are divided by z . phi(q). z is the last row of a head's state.

    Raises:
        ValueError: the heads do not divide d_model, an unknown phi, or a normalizer of features that may be
            negative, whose sum may vanish.
    """

    def __init__(self, d_model: int, heads: int = 4, features: str = "elu", normalize: bool = True) -> None:
        super().__init__()
        check_divides("heads", heads, "d_model", d_model)
        check_word("Linear attention", "feature map", features, FEATURES)
        if normalize and features == "identity":
            raise ValueError(
                "The normalizer of linear attention is a sum of features, which must not be negative; "
                "features='identity' may be. Take features='elu' or 'relu', or normalize=False."
            )
        self.d_model = d_model
        self.heads = heads
        size = d_model // heads
        self.features = features
        self.normalize = normalize
        self.matrix = (size + normalize, size)
        self.conv = NoConv(d_model)
        self.in_proj = Projection(d_model, 3 * d_model, bias=False)
        self.norm = nn.Identity() if normalize else RMSNorm(size)
        self.out_proj = Projection(d_model, d_model, bias=False)

    def project(self, x: Channels) -> tuple[Channels, tuple[Tensor, ...]]:
        """The input as it is for the convolution that is not there; queries, keys and values set aside."""
        return x, self.in_proj(x).chunk(3, -1)

    def drive(self, inner: Channels, side: tuple[Tensor, ...], dt: Tensor | None) -> Drive:
        """Features of queries and keys; values, with a one beside them that sums up the normalizer."""
        q, k, v = (m.unflatten(-1, (self.heads, -1)) for m in side)
        q, k = self._features(q), self._features(k)
        wide = torch.promote_types(v.dtype, torch.float32)
        if self.normalize:
            v = F.pad(v, (0, 1), value=1.0)
        else:
            q = q * self.matrix[1] ** -0.5
        # Every token counts alike: a step of one under a decay rate of zero.
        return Drive(q, k, v, torch.ones(v.shape[:-1], dtype=wide, device=v.device))

    def write(self, drive: Drive, S: Tensor) -> tuple[Tensor, Tensor]:
        """S = S + v phi(k)^T; o = S phi(q)."""
        q, k, v = (m.to(drive.decay.dtype) for m in drive[:3])
        S = torch.addcmul(S, v[..., None], k[..., None, :])
        return self._divide((S * q[..., None, :]).sum(-1)), S

    def scan(self, drive: Drive, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The same in chunks."""
        q, k, v, steps = drive
        if self.normalize:
            v = v.to(steps.dtype)
        y, S = ssd(v, steps, steps.new_zeros(self.heads), k, q, None, S, resets)
        return self._divide(y), S

    def readout(self, y: Tensor, side: tuple[Tensor, ...]) -> Channels:
        """A norm over each head where nothing has normalized, and a linear map."""
        return self.out_proj(self.norm(y.to(side[2].dtype)).flatten(-2))

    def with_values(self, drive: Drive, v: Float[Tensor, "b t h _"]) -> Drive:
        """Other values, with the one beside them that sums up the normalizer."""
        return drive._replace(v=F.pad(v, (0, 1), value=1.0) if self.normalize else v)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h"]:
        """Zeros: no head forgets."""
        self.check_call(x, None)
        return torch.zeros_like(self._driven(x, None).decay)

    def _features(self, x: Tensor) -> Tensor:
        if self.features == "elu":
            return F.elu(x) + 1
        return F.relu(x) if self.features == "relu" else x

    def _divide(self, y: Tensor) -> Tensor:
        if not self.normalize:
            return y
        return y[..., :-1] / (y[..., -1:] + EPS)

    @classmethod
    def example(cls) -> "LinearAttention":
        """A small instance."""
        return cls(8, heads=2)
