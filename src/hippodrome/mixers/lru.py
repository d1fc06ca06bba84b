"""LRU: the linear recurrent unit, one complex diagonal state that all channels share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import spectrum
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._lti import Shared, System
from hippodrome.mixers.base import ParameterGroup


class LRU(Shared):
    """x_k = lambda x_{k-1} + exp(gamma) (B u_k), y_k = Re C x_k + D u_k, then GELU and a gated linear unit.

    Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences", arXiv 2303.06349,
    equation 7, lambda = exp(-exp(nu) + i exp(theta)). All n complex states are kept, so there is no factor
    2. The unit is born discrete: as a member of the engine its poles are log lambda, its step is 1 and its
    inputs are impulses; it refuses ``dt``. Inside the boundary of this mixer is what the published layer
    holds between its norm and its residual, dropout apart.

    Args:
        d_model: channels in and out.
        d_state: complex numbers in the state.
        r_min: smallest initial |lambda|.
        r_max: largest initial |lambda|; long memories want both near 1.
        max_phase: largest initial angle of lambda, in radians.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.

    Raises:
        ValueError: the radii are not 0 <= r_min < r_max <= 1, or max_phase is not positive.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.283185307179586,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.choose_discretization("impulse")
        kind = torch.get_default_dtype()
        nu, theta, gamma = spectrum.ring(d_state, r_min, r_max, max_phase)
        self.nu = nn.Parameter(nu.to(kind))
        self.theta = nn.Parameter(theta.to(kind))
        self.gamma = nn.Parameter(gamma.to(kind))
        self.B = nn.Parameter(torch.randn(d_state, d_model, 2) / (2 * d_model) ** 0.5)
        self.C = nn.Parameter(torch.randn(d_model, d_state, 2) / d_state**0.5)
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    def system(self) -> System:
        """A = -exp(nu) + i exp(theta), the logarithm of lambda: |lambda| < 1 whatever training does."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        A = torch.stack([-torch.exp(self.nu.to(wide)), torch.exp(self.theta.to(wide))], -1)
        B = torch.exp(self.gamma.to(wide))[:, None, None] * self.B.to(wide)
        return System(A, B, self.C.to(wide), self.D.to(wide))

    def step_size(self) -> Float[Tensor, ""]:
        """1: the recurrence has no other clock than its tokens."""
        return torch.ones((), dtype=torch.promote_types(self.nu.dtype, torch.float32), device=self.nu.device)

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate; or nothing."""
        return self.output(y)

    def parameter_groups(self) -> list[ParameterGroup]:
        """nu, theta, gamma and B: half the learning rate, no decay."""
        return [ParameterGroup([self.nu, self.theta, self.gamma, self.B], lr_factor=0.5, decay=False)]

    @classmethod
    def example(cls) -> "LRU":
        """A small instance."""
        return cls(8, d_state=6)
