"""The state space inside GSS: a bank of complex modes shared by all channels, with no step size to learn."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers._lti import Bank, System


class SimplifiedDSS(Bank):
    """K_l = Re sum_n C_n (e^lambda_n - 1) / lambda_n e^(lambda_n l), lambda = -exp(re) + i exp(im), plus D.

    DSS in its exp form with the step size 1 everywhere and all n complex modes kept, so there is no factor 2.

    Args:
        d_model: channels in and out.
        d_state: complex numbers in each channel's state.
    """

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.choose_discretization("zoh")
        self.Lambda = nn.Parameter(torch.randn(d_state, 2))
        self.C = nn.Parameter(torch.randn(d_model, d_state, 2))
        self.D = nn.Parameter(torch.randn(d_model))

    def system(self) -> System:
        """The poles for every channel, B = 1, C and D."""
        C = self.C.to(torch.promote_types(self.C.dtype, torch.float32))
        re, im = torch.exp(self.Lambda.to(C.dtype)).unbind(-1)
        one = torch.tensor([1.0, 0.0], dtype=C.dtype, device=C.device)
        return System(torch.stack([-re, im], -1).expand_as(C), one.expand_as(C), C, self.D.to(C.dtype))

    def step_size(self) -> Float[Tensor, "d"]:
        """1."""
        return torch.ones_like(self.D, dtype=torch.promote_types(self.D.dtype, torch.float32))

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """As it is."""
        return y

    @classmethod
    def example(cls) -> "SimplifiedDSS":
        """A small instance."""
        return cls(4, 4)
