"""S5: one diagonal state space system with many inputs and outputs, and a state that all channels share."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from hippodrome.inits import spectrum, steps
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.layers.projection import Projection
from hippodrome.mixers._lti import Shared, System
from hippodrome.mixers.base import ParameterGroup, check_word

C_INITS = ("trunc_standard_normal", "lecun_normal", "complex_normal")
INITS = ("hippo", "ptd")
ACTIVATIONS = ("full_glu", "half_glu1", "half_glu2", "gelu")
LARGEST_REAL = -1e-4
"""Where ``clip_eigs`` stops the real part of a pole."""


class S5(Shared):
    """x' = A x + B u, y = 2 Re C x + D u with one state for all channels, then an activation with a gate.

    Smith, Warrington, Linderman 2022, "Simplified state space layers for sequence modeling", arXiv
    2208.04933, section 3, equations of the multi-input, multi-output system. A starts as ``blocks`` copies of
    the normal part of HiPPO-LegS in the basis of its eigenvectors V, B as V^-1 times a real random map, C as
    a random map times V. The state may be reset inside the scan, with the token of a reset taken in (Lu et
    al. 2023, "Structured state space models for in-context reinforcement learning", arXiv 2303.03982). Inside
    the boundary of this mixer is what the published layer holds between its norm and its residual, dropout
    apart.

    ``dt`` multiplies the step size of its token, ``step_rescale`` those of all tokens: 2 for data sampled at
    half the rate of the training data.

    Args:
        d_model: channels in and out.
        d_state: real size P of the state; with ``conj_sym`` P / 2 complex numbers are kept.
        blocks: copies J of the HiPPO matrix on the diagonal, each of size P / J.
        init: the matrix of a block: "hippo", the normal part of LegS; or "ptd", LegS itself, perturbed and
            then diagonalized (Yu et al. 2023, arXiv 2310.01698; the perturbation is ours, see
            ``inits.perturb.structured_ptd``).
        c_init: "trunc_standard_normal" (deviation 1 / sqrt(P) in the basis of the matrix), "lecun_normal"
            (1 / sqrt(P d_model) there), or "complex_normal" (sqrt(1/2) in the basis of the eigenvectors).
        discretization: "zoh" or "bilinear".
        dt_min: smallest initial step size.
        dt_max: largest initial step size.
        conj_sym: keep one of each pair of conjugate poles; otherwise all P are free.
        clip_eigs: hold the real part of every pole at -1e-4 or less; the published default is not to.
        step_rescale: a factor on all step sizes.
        perturbation: size alpha of the perturbation of "ptd".
        activation: "full_glu": W1 g * sigmoid(W2 g) with g = gelu(y); "half_glu1": g * sigmoid(W g);
            "half_glu2": y * sigmoid(W g); "gelu": g.
        gated: whether the output map follows the system; without it the mixer is the system and its skip.

    Raises:
        ValueError: a size does not divide, an unknown name, or a ``step_rescale`` that is not positive.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        blocks: int = 1,
        init: str = "hippo",
        c_init: str = "trunc_standard_normal",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        conj_sym: bool = True,
        clip_eigs: bool = True,
        step_rescale: float = 1.0,
        perturbation: float = 0.1,
        activation: str = "full_glu",
        gated: bool = True,
    ) -> None:
        super().__init__()
        check_word("S5", "init", init, INITS)
        check_word("S5", "c_init", c_init, C_INITS)
        check_word("S5", "activation", activation, ACTIVATIONS)
        self.d_model = d_model
        self.conj_sym = conj_sym
        self.clip_eigs = clip_eigs
        self.activation = activation
        self.step_rescale = step_rescale
        self.choose_discretization(discretization)
        here = torch.get_default_device()
        with torch.device("cpu"):  # decompositions read their numbers, which a meta device does not have
            parts = spectrum.hippo_blocks(d_state, blocks, perturbation if init == "ptd" else None)
        poles, V, inverse = (x.contiguous().to(here) for x in parts)
        V, inverse = torch.view_as_complex(V), torch.view_as_complex(inverse)
        if not conj_sym:
            poles = torch.cat([poles, poles * poles.new_tensor([1.0, -1.0])])
            V, inverse = torch.cat([V, V.conj()], 1), torch.cat([inverse, inverse.conj()])
        count = len(poles)
        B = inverse @ _lecun(d_state, d_model, fan_in=d_state).to(inverse.dtype)
        if c_init == "complex_normal":
            C = torch.randn(d_model, count, 2, dtype=torch.float64) * 0.5**0.5
        else:
            fan_in = d_state if c_init == "trunc_standard_normal" else d_state * d_model
            C = torch.view_as_real(torch.view_as_complex(_lecun(d_model, d_state, 2, fan_in=fan_in)) @ V)
        kind = torch.get_default_dtype()
        self.log_dt = nn.Parameter(steps.log_uniform(count, dt_min, dt_max).log().to(kind))
        self.A = nn.Parameter(poles.to(kind))
        self.B = nn.Parameter(torch.view_as_real(B).to(kind))
        self.C = nn.Parameter(C.to(kind))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output: nn.Module
        if not gated:
            self.output = nn.Identity()
        elif activation == "full_glu":
            self.output = GatedOutput(d_model)
        elif activation == "gelu":
            self.output = nn.GELU()
        else:
            self.output = Projection(d_model, d_model)

    @property
    def step_rescale(self) -> float:
        """The factor on all step sizes; it may be set at any time."""
        return self._step_rescale

    @step_rescale.setter
    def step_rescale(self, factor: float) -> None:
        if not (factor > 0 and math.isfinite(factor)):
            raise ValueError(
                f"step_rescale multiplies the step sizes, so it must be positive and finite; got {factor}. "
                "Take 2 for data sampled at half the rate of the training data."
            )
        self._step_rescale = float(factor)

    def settings(self) -> tuple[object, ...]:
        """The discretization, the factor on the step sizes, and whether poles are clipped."""
        return (self.discretization, self.step_rescale, self.clip_eigs)

    def system(self) -> System:
        """The parameters themselves, the poles clipped where asked; C twice where conjugates are left out."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        A, C = self.A.to(wide), self.C.to(wide)
        if self.clip_eigs:
            A = torch.stack([A[..., 0].clamp_max(LARGEST_REAL), A[..., 1]], -1)
        return System(A, self.B.to(wide), 2 * C if self.conj_sym else C, self.D.to(wide))

    def step_size(self) -> Float[Tensor, "n"]:
        """exp(log_dt) times ``step_rescale``."""
        wide = torch.promote_types(self.log_dt.dtype, torch.float32)
        return self.step_rescale * torch.exp(self.log_dt.to(wide))

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """The activation with its gate; or nothing."""
        if self.activation in ("full_glu", "gelu") or isinstance(self.output, nn.Identity):
            return self.output(y)
        gelu = F.gelu(y)
        return (gelu if self.activation == "half_glu1" else y) * torch.sigmoid(self.output(gelu))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, poles and B: at most 1e-3, no decay."""
        return [ParameterGroup([self.log_dt, self.A, self.B], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "S5":
        """A small instance."""
        return cls(8, d_state=8, blocks=2)


def _lecun(*shape: int, fan_in: int) -> Float64[Tensor, "*shape"]:
    """Normal numbers cut off at two deviations, of variance 1 / fan_in (LeCun et al. 1998)."""
    # A unit normal cut at 2 has this deviation.
    deviation = fan_in**-0.5 / 0.87962566103423978
    values = torch.empty(*shape, dtype=torch.float64)
    return nn.init.trunc_normal_(values, 0.0, deviation, -2 * deviation, 2 * deviation)
