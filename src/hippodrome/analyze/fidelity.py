"""How true a diagonal system is to the dense HiPPO system it stands for, over frequency and in time.

S4D-LegS drops the rank-one part of LegS. The state it makes is that of LegS divided by 1 + rho, one factor
for all entries, with rho(s) = prod (s - k) / prod (s + k) (k from 0 to n-1 above, 1 to n below), and
|1 + rho| comes near 0 at its own highest eigenvalue: a sinusoid there comes out hundreds of times too large.
Perturb-then-diagonalize keeps all but a part alpha of it and stays within alpha / (1 - alpha) everywhere.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.analyze.systems import continuous_response
from hippodrome.inits import hippo, perturb
from hippodrome.ops.discretize import dense_zoh


class Fidelity(NamedTuple):
    """Relative errors |x - x_HiPPO| / |x_HiPPO| of the state at frequencies ``omega``, for each system.

    ``amplified`` is |x| / |x_HiPPO|; ``bound`` is alpha / (1 - alpha); ``spike`` is the highest eigenvalue of
    S4D-LegS, where its error peaks.
    """

    omega: Float[Tensor, "f"]
    error: dict[str, Float[Tensor, "f"]]
    amplified: dict[str, Float[Tensor, "f"]]
    bound: float
    spike: float


def contenders(n: int, alpha: float = 0.1) -> dict[str, tuple[Tensor, Tensor]]:
    """A (n, n) and B (n) of three systems, the last two rebuilt from the diagonal numbers mixers start from.

    "HiPPO" is LegS; "S4D-LegS" has its normal part A + P P^T and B / 2, the scale at which it tends to LegS
    as n grows; "PTD" is A + alpha P P^T and B, perturbed and then diagonalized.

    Raises:
        ValueError: n is odd, or alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"The perturbation adds a part alpha of P P^T, 0 < alpha < 1; got {alpha}.")
    A, B = hippo.legs(n)
    poles, vectors = (torch.view_as_complex(part) for part in hippo.eigenvectors("legs", n))
    normal = 2 * ((vectors * poles) @ vectors.mH).real
    found = perturb.structured_ptd(n, alpha)
    V, V_inv = torch.view_as_complex(found.V), torch.view_as_complex(found.V_inv)
    near = ((V * torch.view_as_complex(found.poles)) @ V_inv).real
    return {"HiPPO": (A, B), "S4D-LegS": (normal, 0.5 * B), "PTD": (near, B)}


def fidelity(n: int, alpha: float = 0.1, omega: Float[Tensor, "f"] | None = None) -> Fidelity:
    """Compare the states of S4D-LegS and PTD with that of LegS, one sinusoid at a time.

    Args:
        n: the size of the state, even.
        alpha: the part of the rank-one term that is added (the perturbation is alpha P P^T).
        omega: frequencies in radians a unit of time; by default from 1e-2 to 100 times the spike, with every
            eigenvalue of S4D-LegS among them.
    """
    systems = contenders(n, alpha)
    own = hippo.eigenvectors("legs", n)[0][:, 1]
    spike = float(own.max())
    if omega is None:
        grid = torch.logspace(-2, torch.log10(own.max()).item() + 2, 2000, dtype=torch.float64)
        omega = torch.cat([grid, own]).sort().values
    states = {name: _states(A, B, omega) for name, (A, B) in systems.items()}
    truth = states.pop("HiPPO")
    size = truth.norm(dim=-1)
    return Fidelity(
        omega,
        {name: (x - truth).norm(dim=-1) / size for name, x in states.items()},
        {name: x.norm(dim=-1) / size for name, x in states.items()},
        alpha / (1 - alpha),
        spike,
    )


def _states(A: Tensor, B: Tensor, omega: Tensor, block: int = 256) -> Tensor:
    parts = [continuous_response(A, B[:, None], None, part)[:, :, 0] for part in omega.split(block)]
    return torch.view_as_complex(torch.cat(parts))


class Noisy(NamedTuple):
    """Outputs of each system in steady state to a slow sinusoid alone and with a fast one added to it.

    ``gain``: the amplitude of the fast part in the output, over that in the output of HiPPO.
    """

    time: Float[Tensor, "t"]
    clean: dict[str, Float[Tensor, "t"]]
    noisy: dict[str, Float[Tensor, "t"]]
    gain: dict[str, float]
    frequency: float


def under_noise(
    n: int,
    alpha: float = 0.1,
    *,
    share: float = 0.1,
    periods: int = 40,
    samples: int = 16,
    seed: int = 0,
) -> Noisy:
    """A sinusoid at the spike of S4D-LegS, of amplitude ``share``, under a slow one of amplitude 1.

    Each system is discretized (zero-order hold, ``samples`` steps to a period of the noise) and read with one
    C for all, random in the coordinates of HiPPO. The slow one turns once in the ``periods`` of the noise
    that are returned. The run starts from the state that the two sinusoids have led to when they have been on
    for ever, and goes on step by step.

    Args:
        n: the size of the state, even.
        alpha: as for ``fidelity``.
        share: amplitude of the noise.
        periods: periods of the noise that are returned.
        samples: steps to a period of the noise, at least 3.
        seed: draws C.
    """
    if samples < 3 or periods < 1:
        raise ValueError(
            f"A sinusoid needs at least 3 steps to a period and 1 period; got samples={samples}, "
            f"periods={periods}."
        )
    systems = contenders(n, alpha)
    frequency = float(hippo.eigenvectors("legs", n)[0][:, 1].max())
    step = 2 * torch.pi / frequency / samples
    slow, fast = 2 * torch.pi / (periods * samples), 2 * torch.pi / samples
    C = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = torch.arange(periods * samples, dtype=torch.float64)
    clean: dict[str, Tensor] = {}
    noisy: dict[str, Tensor] = {}
    size: dict[str, float] = {}
    for name, (A, B) in systems.items():
        Abar, Bbar = dense_zoh(A, B[:, None], torch.tensor(step, dtype=torch.float64))
        low = _steady(Abar, Bbar[:, 0], C, slow, len(k))
        high = _steady(Abar, Bbar[:, 0], C, fast, len(k))
        clean[name], noisy[name] = low, low + share * high
        # Over whole periods a sinusoid of amplitude a has the mean square a^2 / 2.
        size[name] = float(torch.sqrt(2 * high.square().mean()))
    return Noisy(k * step, clean, noisy, {name: s / size["HiPPO"] for name, s in size.items()}, frequency)


def _steady(A: Tensor, B: Tensor, C: Tensor, turn: float, length: int) -> Tensor:
    """C x_k for an input cos(turn k) that has been on for ever: by steps from the steady state at k = -1."""
    z = torch.exp(torch.tensor(1j * turn, dtype=torch.complex128))
    eye = torch.eye(len(B), dtype=torch.complex128)
    x = torch.linalg.solve(eye - A / z, B.to(eye.dtype)) / z
    x = x.real
    outputs = []
    for k in range(length):
        x = A @ x + B * torch.cos(torch.tensor(turn * k, dtype=torch.float64))
        outputs.append(C @ x)
    return torch.stack(outputs)
