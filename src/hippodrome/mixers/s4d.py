"""S4D: a bank of diagonal state space systems, one for each channel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo, perturb, spectrum
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._lti import Bank
from hippodrome.mixers._stable import StablePairs
from hippodrome.mixers.base import check_word


class S4D(StablePairs, Bank):
    """x' = A x + B u, y = 2 Re C x + D u for each channel, then GELU and a gated linear unit across channels.

    Gu, Gupta, Goel, Ré 2022, "On the parameterization and initialization of diagonal state space models",
    arXiv 2206.11893, equation 1 with A diagonal (section 3), one of each conjugate pair kept. Inside the
    boundary of this mixer is what the published layer holds between its norm and its residual: the system
    with its skip D, GELU, a linear map to twice the width and the gate. Dropout and norm belong to the
    block around it.

    ``dt`` multiplies the step size.

    With the init "ptd" it is S4-PTD (Yu, Nigmetov, Morozov, Mahoney, Erichson 2023, arXiv 2310.01698): LegS
    is perturbed a little and then diagonalized, where "legs" drops its low-rank part. The perturbation is
    ``inits.perturb.structured_ptd``, whose distance from LegS is bounded at every frequency.

    Args:
        d_model: channels in and out.
        d_state: real size N of each channel's state; N / 2 complex numbers are kept.
        init: where the poles start: "lin", "inv", "legs", "real" (see ``inits.spectrum``) or "ptd".
        discretization: "zoh", "bilinear", "backward_euler", "forward_euler" (which may grow without end where
            a pole turns fast) or "impulse".
        dt_min: smallest initial step size; 1 / dt is about how many steps a channel remembers.
        dt_max: largest initial step size.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.
        perturbation: size alpha of the perturbation of "ptd"; other inits do not use it.

    Raises:
        ValueError: d_state is odd, an unknown init or discretization, or a perturbation so small that some
            eigenvalue stays real.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        init: str = "legs",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        gated: bool = True,
        perturbation: float = 0.1,
    ) -> None:
        super().__init__()
        self.choose_discretization(discretization)
        here = torch.get_default_device()
        with torch.device("cpu"):  # decompositions read their numbers, which a meta device does not have
            poles, weight = (x.to(here) for x in _start(init, d_state, perturbation))
        self.start(d_model, poles, weight, dt_min, dt_max)
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate; or nothing."""
        return self.output(y)

    @classmethod
    def example(cls) -> "S4D":
        """A small instance."""
        return cls(8, d_state=8)


def _start(init: str, d_state: int, perturbation: float) -> tuple[Tensor, Tensor]:
    """Poles (d_state / 2, 2), and B in the basis of their eigenvectors, each turned to make it positive."""
    check_word("S4D", "init", init, [*spectrum.S4D, "ptd"])
    if init != "ptd":
        return spectrum.s4d(init, d_state)
    if d_state < 2 or d_state % 2:
        raise ValueError(f"A state of conjugate pairs has an even size, at least 2; got {d_state}.")
    poles, _, inverse = perturb.half(perturb.structured_ptd(d_state, perturbation))
    _, B = hippo.legs(d_state)
    return poles, torch.linalg.vector_norm(torch.einsum("knz,n->kz", inverse, B), dim=-1)
