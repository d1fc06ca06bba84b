"""The HiPPO systems, their normal parts and low-rank rests, and the functions whose weights their states are.

A system x' = A x + B u of this file keeps in x the weights of its input's past on an orthonormal family of
functions. Throughout, the age of an input is how long ago it came: 0 is now.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Matrix = Float64[Tensor, "n n"]
Vector = Float64[Tensor, "n"]


class Normal(NamedTuple):
    """A = V (Lambda - P P^*) V^* and B with V unitary: one of each conjugate pair, numbers as pairs."""

    poles: Float64[Tensor, "half 2"]
    """Lambda, ascending imaginary part, not negative."""
    P: Float64[Tensor, "rank half 2"]
    """V^* of the low-rank columns, one row each."""
    B: Float64[Tensor, "half 2"]
    """V^* B. Each eigenvector is turned so that this is real and positive."""


def legs(n: int) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of HiPPO-LegS: projection onto Legendre polynomials over all of the past.

    A[i, k] = -sqrt((2i+1)(2k+1)) below the diagonal, -(i+1) on it, 0 above; B[i] = sqrt(2i+1). (Gu, Dao,
    Ermon, Rudra, Ré 2020, arXiv 2008.07669, theorem 2.) The memory itself is x' = (A x + B u) / t; run as it
    stands the system forgets: (exp(tA) B)_i = exp(-t) sqrt(2i+1) P_i(2 exp(-t) - 1).
    """
    root = _roots(n)
    below = torch.tril(torch.outer(root, root), -1)
    return -below - torch.diag(torch.arange(1, n + 1, dtype=torch.float64)), root


def legt(n: int, theta: float = 1.0) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of HiPPO-LegT: Legendre polynomials over the last ``theta`` of time.

    A[i, k] = -sqrt((2i+1)(2k+1)) / theta times 1 where k <= i and (-1)^(i-k) where k > i; B[i] = sqrt(2i+1) /
    theta. (Gu et al. 2020, arXiv 2008.07669, theorem 1.) Read with C[i] = (-1)^i sqrt(2i+1) it is the
    [n-1 / n] Padé approximant of a delay by theta.

    Raises:
        ValueError: theta is not positive.
    """
    _positive(theta)
    root = _roots(n)
    sign = _alternating(n)
    A = -torch.outer(root, root) * torch.where(
        torch.ones(n, n, dtype=torch.bool).triu(1), sign[:, None] * sign, 1.0
    )
    return A / theta, root / theta


def lmu(n: int, theta: float = 1.0) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of the Legendre memory unit: LegT on polynomials that are not normalized.

    A[i, k] = (2i+1) / theta times -1 where i < k and (-1)^(i-k+1) where i >= k; B[i] = (2i+1) (-1)^i / theta.
    (Voelker, Kajić, Eliasmith 2019, "Legendre memory units", equation 2.) It is D A D^-1 and D B of
    ``legt`` with D = diag((-1)^i sqrt(2i+1)).

    Raises:
        ValueError: theta is not positive.
    """
    _positive(theta)
    sign = _alternating(n)
    odd = _roots(n).square()
    upper = torch.ones(n, n, dtype=torch.bool).triu(1)
    A = odd[:, None] * torch.where(upper, -1.0, -sign[:, None] * sign)
    return A / theta, odd * sign / theta


def lagt(n: int) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of HiPPO-LagT: Laguerre functions, a past that fades exponentially.

    A is -1/2 on the diagonal, -1 below, 0 above; B is all ones, and (exp(tA) B)_i = exp(-t/2) L_i(t). (Gu et
    al. 2020, arXiv 2008.07669, theorem 1, in the basis that makes A constant on its diagonals.)
    """
    one = torch.ones(_size(n), dtype=torch.float64)
    return 0.5 * torch.diag(one) - torch.ones(n, n, dtype=torch.float64).tril(), one


def fout(n: int) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of HiPPO-FouT: the Fourier series of the last unit of time.

    With b = (1, 0, s, 0, s, 0, ...), s = sqrt 2, A = 2 pi K - 2 b b^T and B = 2 b, where K turns each pair
    (2k, 2k+1) by k: K[2k+1, 2k] = k = -K[2k, 2k+1]. Index 2k is cos(2 pi k age), 2k+1 is sin(2 pi k age), so
    index 1 stays 0. (Gu, Johnson, Timalsina, Rudra, Ré 2022, "How to train your HiPPO", arXiv 2206.12037,
    S4-FouT; published code halves A and B, which is a window of 2.) Read with C = 2 b and D = -1
    it is an all-pass that delays by 1 what is slow enough.

    Raises:
        ValueError: n is odd.
    """
    turn, b = _fourier(n)
    return turn - 2 * torch.outer(b, b), 2 * b


def foud(n: int) -> tuple[Matrix, Vector]:
    """A (n, n) and B (n) of the decayed Fourier system: 2 pi K - 1/2 and b, in the letters of ``fout``.

    A is normal as it stands; (exp(tA) B) is exp(-t/2) (1, 0, s cos 2 pi t, s sin 2 pi t, ...).

    Raises:
        ValueError: n is odd.
    """
    turn, b = _fourier(n)
    return turn - 0.5 * torch.eye(n, dtype=torch.float64), b


MEASURES: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "legs": legs,
    "legt": legt,
    "lagt": lagt,
    "fout": fout,
    "foud": foud,
    "lmu": lmu,
}
"""Systems (A, B) of a size by name; those of a window have the window 1."""


def low_rank(measure: str, n: int) -> Float64[Tensor, "n rank"]:
    """P (n, r), for which A + P P^T is a multiple of one plus a skew matrix, and so normal.

    LegS: sqrt(i + 1/2), rank 1. LagT: sqrt(1/2), rank 1. LegT: sqrt(2i + 1), its even entries in one column
    and its odd ones in another, rank 2. FouT: sqrt(2) b, rank 1. FouD needs none, rank 0. (Gu, Goel, Ré 2021,
    arXiv 2111.00396, theorem 1 and appendix C.1, at the scale of the matrices of this file.)

    Raises:
        ValueError: the measure is unknown or has no such form.
    """
    known(measure)
    if measure == "legs":
        return _roots(n)[:, None] / math.sqrt(2)
    if measure == "lagt":
        return torch.full((_size(n), 1), math.sqrt(0.5), dtype=torch.float64)
    if measure == "legt":
        root, even = _roots(n), _alternating(n) > 0
        return torch.stack([torch.where(even, root, 0.0), torch.where(even, 0.0, root)], -1)
    if measure == "fout":
        return math.sqrt(2) * _fourier(n)[1][:, None]
    if measure == "foud":
        return torch.zeros(n, 0, dtype=torch.float64)
    raise ValueError(
        f"{measure!r} is no normal matrix plus one of low rank in its own basis; expected one of legs, legt, "
        "lagt, fout, foud. LMU is similar to legt: take that."
    )


def eigenvectors(measure: str, n: int) -> tuple[Float64[Tensor, "half 2"], Float64[Tensor, "n half 2"]]:
    """Eigenvalues (n/2, 2) and orthonormal eigenvectors (n, n/2, 2) of the normal part A + P P^T.

    One of each conjugate pair: the imaginary part ascends and is not negative. Each vector is turned so that
    its entry of V^* B is real and positive. With the conjugates the vectors are a unitary matrix; LegS and
    FouD have the real part -1/2, the others 0.

    Raises:
        ValueError: n is odd, or the measure has no such form.
    """
    if n < 2 or n % 2:
        raise ValueError(
            f"Eigenvalues of {measure} come in conjugate pairs, so n must be even; got {n}. "
            f"Take {max(n + 1, 2)}."
        )
    P = low_rank(measure, n)
    A, B = MEASURES[measure](n)
    real = -0.5 if measure in ("legs", "foud") else 0.0
    if measure in ("fout", "foud"):
        # In closed form: the pair of index 0 is twice the eigenvalue 0, where a solver would hand back two
        # real vectors, no conjugate pair.
        pair = torch.arange(n // 2)
        omega = 2 * math.pi * pair.to(torch.float64)
        vectors = torch.zeros(n, n // 2, dtype=torch.complex128)
        vectors[2 * pair, pair] = math.sqrt(0.5)
        vectors.imag[2 * pair + 1, pair] = -math.sqrt(0.5)
    else:
        skew = A + P @ P.T - real * torch.eye(n, dtype=torch.float64)
        omega, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
        omega, vectors = omega[n // 2 :], vectors[:, n // 2 :]
    weight = vectors.conj().T @ B.to(torch.complex128)
    vectors = vectors * (weight / weight.abs())
    return torch.stack([torch.full_like(omega, real), omega], -1), torch.view_as_real(vectors)


def nplr(measure: str, n: int) -> Normal:
    """A = V (Lambda - P P^*) V^*, half of it: poles (n/2, 2), P (rank, n/2, 2), B (n/2, 2).

    The whole system is these and their conjugates, so that a read-out is twice a real part, and P^* x sums
    over both halves. (Gu, Goel, Ré 2021, arXiv 2111.00396, theorem 1.) Rank 1 for legs, lagt and fout, 2 for
    legt, 0 for foud.

    Raises:
        ValueError: n is odd, or the measure has no such form.
    """
    poles, V = eigenvectors(measure, n)
    B = MEASURES[measure](n)[1]
    adjoint = torch.view_as_complex(V).conj().T
    P = adjoint @ low_rank(measure, n).to(torch.complex128)
    weight = (adjoint @ B.to(torch.complex128)).abs()
    B_half = torch.stack([weight, torch.zeros_like(weight)], -1)
    return Normal(poles, torch.view_as_real(P.T.contiguous()), B_half)


def legs_normal(n: int) -> tuple[Float64[Tensor, "half 2"], Float64[Tensor, "half"]]:
    """Half of the spectrum of LegS without its rank-one part, and B in the basis of its eigenvectors.

    A + P P^T with P[i] = sqrt(i + 1/2) is -1/2 plus a skew matrix, so its eigenvectors are orthonormal and
    its eigenvalues are pairs -1/2 +- i omega: those with omega > 0, ascending, as pairs (n/2, 2). Each
    eigenvector is turned so that its entry of V^* B is real and positive, (n/2). (Gu, Goel, Ré 2021, arXiv
    2111.00396, theorem 1; Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, section 4.)

    Raises:
        ValueError: n is odd.
    """
    normal = nplr("legs", n)
    return normal.poles, normal.B[:, 0]


def basis(measure: str, n: int, age: Float[Tensor, "*points"]) -> Float64[Tensor, "*points n"]:
    """The n functions at ages, (..., n) in float64: inputs are about ``basis(measure, n, age) @ x``.

    LegS, LegT: sqrt(2i+1) P_i(1 - 2 age), where age is in parts of the window: 0 is now, 1 its far end (all
    of the past for the scaled memory of LegS; for LegS run as it stands, an age s in units of time is
    1 - exp(-s) here). LMU: P_i(2 age - 1). LagT: exp(-age/2) L_i(age), age in units of time. FouT: 1, 0,
    sqrt(2) cos(2 pi k age), sqrt(2) sin(2 pi k age).

    Raises:
        ValueError: the measure is unknown, or its functions rebuild nothing (foud, whose window never ends).
    """
    known(measure)
    age = age.to(torch.float64)
    if measure in ("legs", "legt"):
        return _roots(n).to(age.device) * _legendre(n, 1 - 2 * age)
    if measure == "lmu":
        return _legendre(n, 2 * age - 1)
    if measure == "lagt":
        return torch.exp(-0.5 * age)[..., None] * _laguerre(n, age)
    if measure == "fout":
        b = _fourier(n)[1][0::2]
        angle = 2 * math.pi * age[..., None] * torch.arange(n // 2, dtype=torch.float64, device=age.device)
        pairs = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
        return (b.to(age.device)[:, None] * pairs).flatten(-2)
    raise ValueError(
        f"A signal cannot be rebuilt from a state of {measure!r}: its functions are periodic and its window "
        "has no end. Expected one of legs, legt, lmu, lagt, fout."
    )


def known(measure: str) -> None:
    """Raise where there is no system of that name."""
    if measure not in MEASURES:
        raise ValueError(f"There is no HiPPO measure {measure!r}; expected one of {', '.join(MEASURES)}.")


def _legendre(n: int, x: Tensor) -> Tensor:
    """P_0 .. P_{n-1} at x, (..., n), by (i+1) P_{i+1} = (2i+1) x P_i - i P_{i-1}."""
    values = [torch.ones_like(x), x]
    for i in range(1, n - 1):
        values.append(((2 * i + 1) * x * values[i] - i * values[i - 1]) / (i + 1))
    return torch.stack(values[:n], -1)


def _laguerre(n: int, x: Tensor) -> Tensor:
    """L_0 .. L_{n-1} at x, (..., n), by (i+1) L_{i+1} = (2i+1-x) L_i - i L_{i-1}."""
    values = [torch.ones_like(x), 1 - x]
    for i in range(1, n - 1):
        values.append(((2 * i + 1 - x) * values[i] - i * values[i - 1]) / (i + 1))
    return torch.stack(values[:n], -1)


def _fourier(n: int) -> tuple[Tensor, Tensor]:
    """2 pi K and b of ``fout``."""
    if _size(n) % 2:
        raise ValueError(f"A Fourier system holds pairs of cosine and sine, so n must be even; got {n}.")
    between = torch.zeros(n - 1, dtype=torch.float64)
    between[0::2] = torch.arange(n // 2, dtype=torch.float64)
    b = torch.zeros(n, dtype=torch.float64)
    b[0::2] = math.sqrt(2)
    b[0] = 1
    return 2 * math.pi * (torch.diag(between, -1) - torch.diag(between, 1)), b


def _roots(n: int) -> Tensor:
    return torch.sqrt(2 * torch.arange(_size(n), dtype=torch.float64) + 1)


def _alternating(n: int) -> Tensor:
    return 1.0 - 2.0 * (torch.arange(_size(n), dtype=torch.float64) % 2)


def _size(n: int) -> int:
    if n < 1:
        raise ValueError(f"A HiPPO system has at least one state; got n={n}.")
    return n


def _positive(theta: float) -> None:
    if not theta > 0:
        raise ValueError(f"The window theta is a positive length of time; got {theta}.")
