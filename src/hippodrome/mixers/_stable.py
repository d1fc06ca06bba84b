"""The parameters of S4D and of Liquid-S4: one of each conjugate pair, stable whatever training does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import steps
from hippodrome.mixers._lti import LTI, System
from hippodrome.mixers.base import ParameterGroup


class StablePairs(LTI):
    """A system for each channel with A = -exp(log_A_real) + i A_imag, and an output twice its real part."""

    def start(
        self,
        d_model: int,
        poles: Float[Tensor, "half 2"],
        weight: Float[Tensor, "half"],
        dt_min: float,
        dt_max: float,
    ) -> None:
        """Make the parameters: each channel begins with these poles and B, and a C, D and dt of its own."""
        kind = torch.get_default_dtype()
        poles = poles.repeat(d_model, 1, 1)
        B = torch.stack([weight, torch.zeros_like(weight)], -1)
        self.d_model = d_model
        self.log_dt = nn.Parameter(steps.log_uniform(d_model, dt_min, dt_max).log().to(kind))
        self.log_A_real = nn.Parameter((-poles[..., 0]).clamp_min(1e-4).log().to(kind))
        self.A_imag = nn.Parameter(poles[..., 1].to(kind).clone())
        self.B = nn.Parameter(B.to(kind).repeat(d_model, 1, 1))
        self.C = nn.Parameter(torch.randn(d_model, len(weight), 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(d_model))

    def system(self) -> System:
        """A = -exp(log_A_real) + i A_imag, B, C twice for the conjugates left out, and D."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        A = torch.stack([-torch.exp(self.log_A_real.to(wide)), self.A_imag.to(wide)], -1)
        return System(A, self.B.to(wide), 2 * self.C.to(wide), self.D.to(wide))

    def step_size(self) -> Float[Tensor, "d"]:
        """exp(log_dt)."""
        return torch.exp(self.log_dt.to(torch.promote_types(self.log_dt.dtype, torch.float32)))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, A and B: at most 1e-3, no decay."""
        slow = [self.log_dt, self.log_A_real, self.A_imag, self.B]
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)]
