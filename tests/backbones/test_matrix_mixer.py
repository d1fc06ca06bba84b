"""The matrix mixers: each structure's product against its matrix, matrices against formulas, pieces."""

import math

import pytest
import torch

from hippodrome.backbones._matrix_structures import STRUCTURES, build_structure
from hippodrome.backbones.matrix_mixer import MatrixMixer
from hippodrome.testing.mixers import assert_refuses, check_noncausal, prepared

BOTH = [
    (name, aligned) for name in STRUCTURES for aligned in (True, False) if (name, aligned) != ("dense", True)
]
EVERY = pytest.mark.parametrize(("structure", "aligned"), BOTH)
H, P, N, T = 3, 2, 4, 7
DOUBLE = torch.float64


def drawn(structure: str, aligned: bool):
    """A structure, what it mixes (two rows, one shorter) and what makes its matrix."""
    torch.manual_seed(1)
    made = build_structure(structure, H, N, aligned, T + 2, H * P, 4).double()
    lengths = torch.tensor([T, 5])
    inside = (torch.arange(T) < lengths[:, None])[..., None, None]
    v = torch.randn(2, T, H, P, dtype=DOUBLE) * inside
    if aligned:
        return made, v, torch.randn(2, T, made.channels + made.steps, dtype=DOUBLE), lengths
    return made, v, torch.randn(T + 2, made.channels, dtype=DOUBLE)[None, :T], lengths


@EVERY
def test_the_product_is_that_with_the_matrix(structure, aligned):
    made, v, given, lengths = drawn(structure, aligned)
    with torch.no_grad():
        expected = torch.einsum("bhij,bjhp->bihp", made.matrix(v, given, lengths).expand(2, -1, -1, -1), v)
        found = made.mix(v, given, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], expected[row, :length], rtol=1e-9, atol=1e-12)
    whole = given[:1]
    with torch.no_grad():  # the first row is
        torch.testing.assert_close(made.mix(v[:1], whole, None), found[:1])
        torch.testing.assert_close(made.matrix(v[:1], whole, None), made.matrix(v[:1], whole, lengths[:1]))


def entry(structure: str, aligned: bool, given, length: int, h: int, i: int, j: int, bias: float):
    """One entry of M, less the identity, as the docstrings say; given (t, c) of a row."""
    two = given[:, : 2 * H * N].unflatten(-1, (2, H, -1)) if structure not in ("dense", "toeplitz") else None
    if structure == "dense":
        return given[i].view(H, -1)[h, j] / math.sqrt(length)
    if structure == "toeplitz":
        taps = given.unflatten(-1, (2, H))
        return (taps[i - j, 0, h] if i >= j else taps[j - i, 1, h]) / (2 * math.sqrt(length))
    q, k = two[i, 0, h], two[j, 1, h]
    if structure == "vandermonde":
        e, sign = (1e-3, -1) if aligned else (1, 1)
        total = torch.cos(2 * math.pi * e * q * j) + sign * torch.cos(2 * math.pi * e * k * i)
        return total.sum() / math.sqrt(2 * length * N)
    if structure == "cauchy":
        return (1 / (q.exp() + k.exp() + 2 * bias + 1e-8)).sum() / math.sqrt(length * N)
    if structure == "low_rank":
        return (q @ k) / math.sqrt(length * N)
    scores = two[:length, 1, h] @ q / math.sqrt(N)
    return scores.softmax(0)[j]


@pytest.mark.parametrize(("structure", "aligned"), [b for b in BOTH if b[0] != "quasiseparable"])
def test_entries_of_the_matrix_are_the_formula(structure, aligned):
    made, v, given, lengths = drawn(structure, aligned)
    bias = 0.0 if getattr(made, "bias", None) is None else made.bias.item()
    M = made.matrix(v, given, lengths).detach()
    M, given = M.expand(2, -1, -1, -1), given.expand(2, -1, -1)
    for row, length in enumerate(lengths.tolist()):
        for h in range(H):
            for i in range(length):
                for j in range(length):
                    expected = entry(structure, aligned, given[row], length, h, i, j, bias) + float(i == j)
                    torch.testing.assert_close(M[row, h, i, j], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
def test_the_quasiseparable_matrix_is_that_of_unit_vectors(aligned):
    made, v, given, lengths = drawn("quasiseparable", aligned)
    M = made.matrix(v, given, lengths).detach()
    with torch.no_grad():
        one, other = v.clone(), v.clone()
        one[:, 4] += 0.5  # what is mixed changes the diagonal, where it is made of that
        change = made.mix(one, given, lengths) - made.mix(other, given, lengths)
    expected = 0.5 * M[:, :, :, 4].mT[..., None].expand(-1, -1, -1, P)
    off = torch.arange(T) != 4
    torch.testing.assert_close(change[:, off], expected[:, off], rtol=1e-9, atol=1e-12)
    # Its corners off the diagonal have no more rank than B and C have numbers.
    for corner in (M[0, 0, 4:, :3], M[0, 0, :3, 4:]):
        assert torch.linalg.matrix_rank(corner) == 3
    few = build_structure("quasiseparable", 1, 1, aligned, T, P, 4).double()
    given = torch.randn(1, T, few.channels + few.steps, dtype=DOUBLE)
    M = few.matrix(torch.randn(1, T, 1, P, dtype=DOUBLE), given, torch.tensor([T])).detach()[0, 0]
    assert torch.linalg.matrix_rank(M[3:, :3]) == torch.linalg.matrix_rank(M[:3, 3:]) == 1
    assert torch.linalg.matrix_rank(M) > 2


@EVERY
def test_contract(structure, aligned):
    mixer = MatrixMixer(6, structure, aligned, max_length=12, d_state=2, head_dim=4, chunk=4)
    check_noncausal(mixer, 9)
    x, resets = torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 4] = True
    single, half = mixer(x, resets=resets)[0], mixer.bfloat16()(x.bfloat16(), resets=resets)[0]
    assert half.dtype == torch.bfloat16
    assert (half.float() - single).abs().max() < 0.1 * single.abs().max()


@EVERY
@torch.no_grad()
def test_the_layer_reads_its_heads_by_its_hidden_attention(structure, aligned):
    mixer = prepared(MatrixMixer(6, structure, aligned, max_length=12, d_state=2, head_dim=4, chunk=4))
    x, resets = torch.randn(2, 7, 6, dtype=DOUBLE), torch.zeros(2, 7, dtype=torch.bool)
    resets[1, [2, 4]] = True
    for marks in (None, resets):
        M = mixer.hidden_attention(x, marks)
        z, v, _ = mixer.drive(x, marks)
        y = torch.einsum("bhij,bjhp->bihp", M, v.unflatten(-1, (-1, 4))).flatten(-2)
        torch.testing.assert_close(mixer.out_proj(mixer.norm(y, z)), mixer(x, resets=marks)[0])
    assert not M[1, :, 4:, :4].any()
    assert not M[1, :, :4, 4:].any()


@EVERY
def test_only_a_matrix_made_of_the_tokens_changes_with_them(structure, aligned):
    mixer = prepared(MatrixMixer(6, structure, aligned, max_length=12, d_state=2, head_dim=4))
    x = torch.randn(1, 6, 6, dtype=DOUBLE)
    lengths = torch.tensor([6])
    found = []
    with torch.no_grad():
        for scale in (1.0, 1.5):
            _, v, given = mixer.drive(scale * x)
            given = mixer.places[None, :6] if given is None else given
            found.append(mixer.matrix.matrix(v.unflatten(-1, (-1, 4)), given, lengths))
    assert torch.equal(*found) != aligned


@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s not in ("dense", "toeplitz")])
def test_all_with_queries_and_keys_have_as_many_parameters_but_for_a_few(structure):
    numbers = sum(p.numel() for p in MatrixMixer(32, structure).parameters())
    others = sum(p.numel() for p in MatrixMixer(32, "low_rank").parameters())
    assert abs(numbers - others) < 0.02 * others


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="has no structure 'sparse'; expected one of dense, toeplitz"):
        MatrixMixer(8, "sparse")
    with pytest.raises(ValueError, match="Set data_dependent=False"):
        MatrixMixer(8, "dense")
    with pytest.raises(ValueError, match="1 or more; got max_length=0"):
        MatrixMixer(8, "dense", False, max_length=0)
    fixed = MatrixMixer(8, "low_rank", False, max_length=4)
    with pytest.raises(ValueError, match="max_length = 4 places; got a piece of 5 tokens"):
        fixed(torch.randn(1, 5, 8))
    resets = torch.tensor([[True, False, True, False, False]])
    assert fixed(torch.randn(1, 5, 8), resets=resets)[0].shape == (1, 5, 8)
    assert_refuses(lambda: fixed(torch.randn(1, 4, 8), dt=torch.ones(1, 4)), "a dt")
