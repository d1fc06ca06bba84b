"""HiPPO memories with fixed matrices: what one step of each does to the weights it holds.

A memory holds r inputs u apart, a state c (r, n) of n weights each, and advances them alike:
c = Abar c + Bbar u. ``matrices`` says Abar and Bbar of steps that took ``dt`` and ended ``elapsed`` after the
first one began.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo
from hippodrome.mixers.base import check_word
from hippodrome.ops.discretize import DENSE
from hippodrome.ops.linear_scan import linear_scan

ALPHAS = {"forward_euler": 0.0, "bilinear": 0.5, "backward_euler": 1.0}
"""Rules of the generalized bilinear kind, and their alpha."""

Matrices = tuple[Float[Tensor, "*steps n n"], Float[Tensor, "*steps n"]]


class Fixed(nn.Module):
    """A tensor that keeps its float64 digits and moves with the module that holds it.

    Its bits are held as whole numbers, for a cast of the module rounds every floating buffer, and a HiPPO
    matrix rounded to bfloat16 is another system. It follows from constructor arguments, so no state_dict
    holds it.
    """

    bits: Tensor

    def __init__(self, value: Float[Tensor, "*sizes"]) -> None:
        super().__init__()
        self.register_buffer("bits", value.double().contiguous().view(torch.int64), persistent=False)

    def forward(self, dtype: torch.dtype) -> Float[Tensor, "*sizes"]:
        """The tensor in a dtype."""
        return self.bits.view(torch.float64).to(dtype)


class Scaled(nn.Module):
    """LegS: c' = (A c + B u) / t, the weights of all of the past, which has no time scale of its own.

    (Gu, Dao, Ermon, Rudra, Ré 2020, arXiv 2008.07669, theorem 2.) One step depends on dt / t alone, 1/k at
    step k of even ones. The Euler rules and "bilinear" take dt / t as the step of the system (A, B), "zoh"
    log(1 + dt / t) as published, "exact" log(t / (t - dt)), the solution itself for an input constant over
    each step.

    Args:
        n: weights of each input.
        discretization: "forward_euler", "backward_euler", "bilinear", "zoh" or "exact".
        start: "first" takes the past before the first input u to be u, so c = (u, 0, ...) after it, as the
            published cell does; "zero" starts from c = 0. The exact solution forgets how it starts.

    Raises:
        ValueError: an unknown word.
    """

    def __init__(self, n: int, discretization: str, start: str = "first") -> None:
        super().__init__()
        check_word("A HiPPO memory", "discretization", discretization, [*ALPHAS, "zoh", "exact"])
        check_word("A HiPPO memory", "start", start, ["first", "zero"])
        self.discretization, self.start = discretization, start
        if discretization in ALPHAS:
            self.A = Fixed(hippo.legs(n)[0])
        else:
            nodes, shares = _gauss(n)
            self.nodes = Fixed(nodes)
            self.weighted = Fixed(shares[:, None] * hippo.basis("legs", n, 1 - nodes))

    def matrices(self, dt: Float[Tensor, "*steps"], elapsed: Float[Tensor, "*steps"]) -> Matrices:
        """Abar and Bbar of each step."""
        ratio = dt / elapsed
        if self.discretization in ALPHAS:
            Abar = self._bilinear(ratio, ALPHAS[self.discretization])
        else:
            # The n-th function turns n^2 times as fast as its argument, so float32 would leave few digits.
            exact = dt.double() / elapsed.double()
            share = 1 / (1 + exact) if self.discretization == "zoh" else 1 - exact
            Abar = self._exponential(share).to(dt.dtype)
        if self.start == "first":
            Abar = torch.where((ratio >= 1)[..., None, None], 0.0, Abar)
        # A e_0 = -B, so by every rule an input that is 1 throughout leaves c = e_0 where it is.
        one = (torch.arange(Abar.shape[-1], device=Abar.device) == 0).to(Abar.dtype)
        return Abar, one - Abar[..., 0]

    def _bilinear(self, size: Tensor, alpha: float) -> Tensor:
        """(1 - alpha size A)^-1 (1 + (1 - alpha) size A), A being lower triangular."""
        A = self.A(size.dtype)
        z = size[..., None, None] * A
        one = torch.eye(A.shape[0], dtype=A.dtype, device=A.device)
        ahead = one + (1 - alpha) * z
        return torch.linalg.solve_triangular(one - alpha * z, ahead, upper=False) if alpha else ahead

    def _exponential(self, share: Tensor) -> Tensor:
        """exp(-A log(share)): what is left of the weights when the past is ``share`` of the whole.

        Column k is the k-th function of the past squeezed into that share, weighed on the functions of the
        whole: share times the integral of phi_i(share y) phi_k(y) over y from 0 to 1. Gauss nodes take it
        exactly, and no power of A is formed.
        """
        y = self.nodes(share.dtype)
        phi = hippo.basis("legs", y.shape[0], 1 - share[..., None] * y)
        return share[..., None, None] * (phi.mT @ self.weighted(share.dtype))


class Invariant(nn.Module):
    """x' = A x + B u with constant matrices, given for a step of 1.

    Args:
        A: (n, n).
        B: (n).
        discretization: "zoh", "bilinear", "forward_euler" or "backward_euler".

    Raises:
        ValueError: there is no such rule.
    """

    def __init__(self, A: Float[Tensor, "n n"], B: Float[Tensor, "n"], discretization: str) -> None:
        super().__init__()
        check_word("A HiPPO memory", "discretization", discretization, DENSE)
        self.discretization = discretization
        self.A, self.B = Fixed(A), Fixed(B)
        Abar, Bbar = DENSE[discretization](A, B[:, None], torch.ones_like(B[0]))
        self.Abar, self.Bbar = Fixed(Abar), Fixed(Bbar[:, 0])

    def constant(self, dtype: torch.dtype) -> Matrices:
        """Abar and Bbar of a step of 1."""
        return self.Abar(dtype), self.Bbar(dtype)

    def matrices(self, dt: Float[Tensor, "*steps"], elapsed: Tensor | None = None) -> Matrices:
        """Abar and Bbar of each step; ``elapsed`` changes nothing."""
        Abar, Bbar = DENSE[self.discretization](self.A(dt.dtype), self.B(dt.dtype)[:, None], dt)
        return Abar, Bbar[..., 0]


def elapsed_times(
    dt: Float[Tensor, "b t"], elapsed: Float[Tensor, "b"] | None, resets: Tensor | None
) -> Float[Tensor, "b t"]:
    """The time since the last reset at the end of each step, from ``elapsed`` before the first."""
    start = None if elapsed is None else elapsed[:, None]
    return linear_scan(torch.ones_like(dt[0, :1]), dt[..., None], start, resets)[0][..., 0]


def write(c: Float[Tensor, "b r n"], u: Float[Tensor, "b r"], step: Matrices) -> Float[Tensor, "b r n"]:
    """One step: Abar c + Bbar u for each input, with matrices of every row or one for all."""
    Abar, Bbar = step
    return c @ Abar.mT + u[..., None] * Bbar[..., None, :]


def writes(u: Float[Tensor, "b t r"], Bbar: Float[Tensor, "*steps n"]) -> Float[Tensor, "b t r n"]:
    """Bbar u of every step."""
    return u[..., None] * Bbar[..., None, :]


def one_clock(elapsed: Float[Tensor, "b"]) -> bool:
    """Whether all rows are known to stand at the same time. A traced graph and a gradient do not ask."""
    if torch.compiler.is_compiling() or elapsed.requires_grad or elapsed.is_meta:
        return False
    return bool((elapsed == elapsed[0]).all())


def _gauss(n: int) -> tuple[Tensor, Tensor]:
    """Nodes on (0, 1) and weights that integrate polynomials up to degree 2n - 1 exactly.

    (Golub, Welsch 1969, "Calculation of Gauss quadrature rules".)
    """
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / torch.sqrt(4 * k.square() - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return 0.5 + 0.5 * nodes, vectors[0].square()
