"""The mixer contract as code: ``check_mixer`` holds any mixer to it, ours and a newcomer's alike."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hippodrome.mixers.base import Mixer, run_steps

EPS = {torch.float64: 1e-9, torch.float32: 1e-5}


def check_mixer(mixer: Mixer, *, batch: int = 3, length: int = 13, seed: int = 0) -> None:
    """Hold a mixer to the whole contract, in float64 to 1e-9 and in float32 to 1e-5.

    Errors are maxima: max|a - b| <= eps * max|b|. The mixer itself is not changed; copies with all parameters
    moved a little are checked, so that a term that starts at zero counts too.

    Raises:
        AssertionError: with a sentence that says which part of the contract is broken and by how much.
    """
    check_state(mixer)
    check_refusals(mixer)
    check_state_dict(mixer)
    mixer = BySign(mixer) if mixer.accepts_modality else mixer
    check_autocast(mixer)
    check_advance(mixer, length, seed=seed)
    check_independence(mixer, length, seed=seed)
    for dtype in EPS:
        check_forward(mixer, length, splits=(1, 4, 5, length - 1), batch=batch, dtype=dtype, seed=seed)
        check_forward(mixer, 1, batch=batch, dtype=dtype, seed=seed)
    places: list[list[int]] = [[], [0], [2, 3, 4, 9], [1, length - 1]]
    check_resets(mixer, length, [[i for i in row if i < length] for row in places], seed=seed)
    check_gradients(mixer, length, seed=seed)
    check_dt(mixer, length, seed=seed)


class BySign(Mixer):
    """A mixer that is told its tokens' modality, 0 or 1, by the sign of their first channel: the contract
    then holds with modalities that change from token to token."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.d_model, self.inside = inside.d_model, inside
        self.accepts_dt = inside.accepts_dt  # type: ignore[misc]  # known by instance

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The mixer's own."""
        return self.inside.init_state(batch, max_length)

    def step(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> tuple[Tensor, tuple]:
        """The mixer's own, with the modality."""
        return self.inside.step(x_t, state, dt_t=dt_t, modality_t=_sign(x_t))

    def advance_(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> Tensor:
        """The mixer's own, with the modality."""
        return self.inside.advance_(x_t, state, dt_t=dt_t, modality_t=_sign(x_t))

    def forward(
        self, x: Tensor, state: Any = None, *, resets: Tensor | None = None, dt: Tensor | None = None
    ) -> tuple[Tensor, tuple]:
        """The mixer's own, with the modalities."""
        return self.inside(x, state, resets=resets, dt=dt, modality=_sign(x))

    @classmethod
    def example(cls) -> "BySign":
        """None: it is made around a mixer."""
        raise TypeError("BySign is made around a mixer that takes modalities.")


def _sign(x: Tensor) -> Tensor:
    return (x[..., 0] > 0).long()


def prepared(mixer: Mixer, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixer:
    """A copy in ``dtype`` with every parameter moved by a tenth of a normal number, in evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    moved = copy.deepcopy(mixer).to(dtype).eval()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g, dtype=dtype))
    return moved


def tokens(
    mixer: Mixer, batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    """Normal inputs (b, t, d)."""
    g = torch.Generator().manual_seed(seed + 1)
    return torch.randn(batch, length, mixer.d_model, generator=g, dtype=dtype)


def warm_state(mixer: Mixer, batch: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple:
    """A state as a few tokens leave it."""
    with torch.no_grad():
        return mixer(tokens(mixer, batch, 5, dtype, seed + 2))[1]


def assert_equal(actual: Tensor, expected: Tensor, what: str, eps: float | None = None) -> None:
    """Raise unless max|actual - expected| <= eps * max|expected|; eps is that of the dtype when None."""
    assert actual.shape == expected.shape, (
        f"{what}: the shape is {tuple(actual.shape)} and should be {tuple(expected.shape)}."
    )
    if not expected.numel():
        return
    if not expected.is_floating_point():
        assert bool((actual == expected).all()), f"{what}: whole numbers differ."
        return
    eps = EPS[expected.dtype] if eps is None else eps
    error = float((actual - expected).detach().abs().max())
    size = float(expected.detach().abs().max())
    assert error <= eps * size, f"{what}: off by {error:.3g}, allowed {eps:g} of {size:.3g}."


def assert_equal_states(actual: Any, expected: Any, what: str, eps: float | None = None) -> None:
    """The same for each tensor of two states of one type."""
    assert type(actual) is type(expected), f"{what}: {type(actual).__name__}, not {type(expected).__name__}."
    for name, a, b in zip(type(expected)._fields, actual, expected, strict=True):  # type: ignore[attr-defined]
        assert_equal(a, b, f"{what}, {name}", eps)


def check_state(mixer: Mixer) -> None:
    """``init_state`` is a NamedTuple of tensors, batch first, where and as precise as the parameters."""
    parameter = next(mixer.parameters())
    for batch in (1, 4):
        for state in (mixer.init_state(batch), mixer.init_state(batch, 7)):
            assert hasattr(state, "_fields"), "A state is a NamedTuple."
            for name, tensor in zip(state._fields, state, strict=True):
                assert isinstance(tensor, Tensor), f"State.{name} is a {type(tensor).__name__}, not a tensor."
                assert tensor.shape[:1] == (batch,), f"State.{name} {tuple(tensor.shape)} is not batch first."
                assert tensor.device == parameter.device, f"State.{name} is not on the parameters' device."
    double = copy.deepcopy(mixer).double().init_state(2)
    for name, tensor in zip(double._fields, double, strict=True):  # type: ignore[attr-defined]
        assert not tensor.is_floating_point() or tensor.dtype == torch.float64, (
            f"State.{name} stays {tensor.dtype} after .double()."
        )


@torch.no_grad()
def check_forward(
    mixer: Mixer,
    length: int,
    *,
    splits: Sequence[int] = (),
    resets: Tensor | None = None,
    with_dt: bool = False,
    batch: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> None:
    """``forward`` equals repeated ``step``, from no state and a warm one, whole and cut at ``splits``."""
    mixer = prepared(mixer, dtype, seed)
    x, more = tokens(mixer, batch, length + 3, dtype, seed).split([length, 3], 1)
    g = torch.Generator().manual_seed(seed)
    dt = 0.5 + torch.rand(batch, length, generator=g, dtype=dtype) if with_dt else None
    warm = warm_state(mixer, batch, dtype, seed)
    for state, start in ((None, "no state"), (warm, "a warm state")):
        origin = mixer.init_state(batch) if state is None else state
        y, last = run_steps(mixer, x, origin, resets=resets, dt=dt)
        got, after = mixer(x, state, resets=resets, dt=dt)
        assert_equal(got, y, f"forward from {start} against repeated step")
        assert_equal_states(after, last, f"last state of forward from {start}")
        assert_equal(mixer(more, after)[0], run_steps(mixer, more, last)[0], "forward from forward's state")
        room = mixer.init_state(batch, length)
        if state is None:
            assert_equal(mixer(x, room, resets=resets, dt=dt)[0], y, "forward from init_state(batch, length)")
        cuts = [0, *sorted({i for i in splits if 0 < i < length}), length]
        pieces = []
        for first, end in pairwise(cuts):
            marks = None if resets is None else resets[:, first:end]
            steps = None if dt is None else dt[:, first:end]
            piece, state = mixer(x[:, first:end], state, resets=marks, dt=steps)
            pieces.append(piece)
        assert_equal(torch.cat(pieces, 1), y, f"chunks cut at {cuts} from {start}")
        assert_equal_states(state, last, f"state after chunks cut at {cuts} from {start}")


@torch.no_grad()
def check_resets(mixer: Mixer, length: int, rows: Sequence[Sequence[int]], *, seed: int = 0) -> None:
    """A row with resets equals separate runs of its pieces; ``rows`` lists where each row is reset."""
    mixer = prepared(mixer, seed=seed)
    batch = len(rows)
    x, more = tokens(mixer, batch, length + 3, seed=seed).split([length, 3], 1)
    resets = torch.zeros(batch, length, dtype=torch.bool)
    for b, marks in enumerate(rows):
        resets[b, list(marks)] = True
    for warm in (False, True):
        y, last = mixer(x, warm_state(mixer, batch, seed=seed) if warm else None, resets=resets)
        later, _ = mixer(more, last)
        for b, marks in enumerate(rows):
            row = x[b : b + 1]
            state = warm_state(mixer, batch, seed=seed) if warm else None
            state = None if state is None else type(state)(*(s[b : b + 1] for s in state))
            cuts = sorted({0, *marks, length})
            pieces = []
            for first, end in pairwise(cuts):
                piece, state = mixer(row[:, first:end], None if first in marks else state)
                pieces.append(piece)
            assert_equal(y[b : b + 1], torch.cat(pieces, 1), f"row {b} with resets at {list(marks)}")
            assert_equal(later[b : b + 1], mixer(more[b : b + 1], state)[0], f"row {b} after its last reset")


@torch.no_grad()
def check_independence(mixer: Mixer, length: int, *, seed: int = 0) -> None:
    """A token changes nothing before it, and a row nothing in other rows."""
    mixer = prepared(mixer, seed=seed)
    x = tokens(mixer, 3, length, seed=seed)
    y, last = mixer(x)
    middle = length // 2
    changed = x.clone()
    changed[:, middle:] += 1.0
    assert_equal(mixer(changed)[0][:, :middle], y[:, :middle], "outputs before a changed token")
    changed = x.clone()
    changed[0] += 1.0
    other, after = mixer(changed)
    assert_equal(other[1:], y[1:], "rows beside a changed row")
    for a, b in zip(after, last, strict=True):
        assert_equal(a[1:], b[1:], "states of rows beside a changed row")


def check_gradients(mixer: Mixer, length: int, *, seed: int = 0) -> None:
    """Every parameter, the input and the initial state get the gradients that repeated ``step`` gives."""
    mixer = prepared(mixer, seed=seed)
    x = tokens(mixer, 3, length, seed=seed)
    weights = tokens(mixer, 3, length, seed=seed + 5)
    warm = warm_state(mixer, 3, seed=seed)
    parameters = dict(mixer.named_parameters())

    def gradients(run: Callable[..., tuple[Tensor, tuple]]) -> Iterator[tuple[str, Tensor | None]]:
        leaf = x.clone().requires_grad_()
        state = type(warm)(*(s.clone().requires_grad_(s.is_floating_point()) for s in warm))
        named = {f"State.{n}": s for n, s in zip(warm._fields, state, strict=True)}  # type: ignore[attr-defined]
        named = {n: s for n, s in named.items() if s.is_floating_point() and s.numel()}
        y, last = run(leaf, state)
        loss = (y * weights).sum() + sum((s**2).sum() for s in last if s.is_floating_point())
        names = [*parameters, "x", *named]
        leaves = [*parameters.values(), leaf, *named.values()]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return zip(names, found, strict=True)

    expected = dict(gradients(lambda leaf, state: run_steps(mixer, leaf, state)))
    for name, gradient in gradients(mixer):
        reference = expected[name]
        assert gradient is not None, f"{name} gets no gradient."
        assert reference is not None, f"{name} gets no gradient through repeated step."
        assert bool(gradient.isfinite().all()), f"the gradient of {name} is not finite."
        if name in parameters:
            assert bool((gradient != 0).any()), f"the gradient of {name} is zero throughout."
        assert_equal(gradient, reference, f"gradient of {name}", 1e-8)


def check_dt(mixer: Mixer, length: int, *, seed: int = 0) -> None:
    """``dt`` is honoured by ``forward`` as by ``step``, or refused by both with a sentence."""
    x = tokens(mixer, 3, length, torch.float32, seed)
    ones = torch.ones(3, length)
    if not mixer.accepts_dt:
        assert_refuses(lambda: mixer(x, dt=ones), "a dt in forward")
        assert_refuses(lambda: mixer.step(x[:, 0], mixer.init_state(3, 1), dt_t=ones[:, 0]), "a dt in step")
        return
    check_forward(mixer, length, splits=(4,), with_dt=True, seed=seed)
    with torch.no_grad():
        mixer = prepared(mixer, seed=seed)
        y, ones = mixer(x.double())[0], ones.double()
        assert_equal(mixer(x.double(), dt=ones)[0], y, "dt = 1 against none")
        # Not 2 throughout: a memory of all of the past is the same on any scale of time.
        ones[:, length // 2 :] = 2
        later = mixer(x.double(), dt=ones)[0]
    assert float((later - y).abs().max()) > 1e-6 * float(y.abs().max()), "dt = 2 changes nothing."


@torch.no_grad()
def check_advance(mixer: Mixer, length: int, *, seed: int = 0) -> None:
    """``step`` leaves its state alone; ``advance_`` does what ``step`` does, inside its caller's tensors."""
    mixer = prepared(mixer, seed=seed)
    x = tokens(mixer, 3, length, seed=seed)
    state, own = mixer.init_state(3, length), mixer.init_state(3, length)
    held = tuple(own)
    for t in range(length):
        before = type(state)(*(s.clone() for s in state))
        y, after = mixer.step(x[:, t], state)
        for name, old, new in zip(state._fields, before, state, strict=True):  # type: ignore[attr-defined]
            assert torch.equal(old, new), f"step changed State.{name}, which belongs to the caller."
        state = after
        assert_equal(mixer.advance_(x[:, t], own), y, f"advance_ against step at token {t}")
        assert_equal_states(own, state, f"state of advance_ after token {t}")
    assert all(a is b for a, b in zip(own, held, strict=True)), "advance_ replaced a tensor of its caller's."


def check_refusals(mixer: Mixer) -> None:
    """No tokens, and a state of other rows, are refused with a sentence."""
    assert_refuses(lambda: mixer(torch.zeros(2, 0, mixer.d_model)), "a sequence of no tokens")
    state = mixer.init_state(3, 4)
    if not state:  # what carries nothing cannot know whose nothing it is
        return
    assert_refuses(lambda: mixer(torch.zeros(2, 4, mixer.d_model), state), "a state of three rows for two")


def assert_refuses(call: Callable[[], object], what: str) -> None:
    """Raise unless ``call`` raises a ValueError that ends in a full stop."""
    raised: Exception | None = None
    try:
        call()
    except Exception as error:
        raised = error
    got = "nothing was raised" if raised is None else f"{type(raised).__name__} was raised: {raised}"
    assert isinstance(raised, ValueError), f"{what} should be refused with a ValueError; {got}"
    assert str(raised).endswith("."), f"{what} is refused, but not in a sentence: {raised}"


@torch.no_grad()
def check_state_dict(mixer: Mixer) -> None:
    """What ``state_dict`` holds is all there is: loaded into another instance, outputs are the same."""
    mine, other = prepared(mixer, torch.float32, 1), prepared(mixer, torch.float32, 2)
    other.load_state_dict(mine.state_dict())
    x = tokens(mixer, 2, 6, torch.float32)
    assert torch.equal(other(x)[0], mine(x)[0]), "The state_dict does not restore the mixer."


def check_autocast(mixer: Mixer) -> None:
    """Under bfloat16 autocast outputs, gradients and states are finite, in ``forward`` as in ``step``."""
    mixer = prepared(mixer, torch.float32)
    x = tokens(mixer, 2, 6, torch.float32)
    with torch.autocast(x.device.type, torch.bfloat16):
        y, state = mixer(x)
        y_t, after = mixer.step(x[:, 0], state)
    y.float().sum().backward()
    for tensor in (y, y_t, *state, *after):
        assert bool(tensor.isfinite().all()), "Not finite under bfloat16 autocast."
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), (
            f"The gradient of {name} is not finite under bfloat16 autocast."
        )


def check_noncausal(mixer: Mixer, length: int, *, packed: bool = True, seed: int = 0) -> None:
    """Hold a mixer that reads later tokens to what is left of the contract.

    It refuses a state and a step, rows know nothing of each other, its state_dict restores it, all gradients
    are there, bfloat16 autocast stays finite, float32 is float64 to 1e-5, and with ``packed`` the pieces
    between resets are separate runs.

    Raises:
        AssertionError: with a sentence that says which part is broken.
    """
    moved = prepared(mixer, seed=seed)
    x = tokens(mixer, 3, length, seed=seed)
    assert not mixer.causal, "A mixer that reads later tokens says causal = False."
    assert_refuses(lambda: moved.init_state(3), "a state of a mixer that reads later tokens")
    assert_refuses(lambda: moved.step(x[:, 0], ()), "a step of a mixer that reads later tokens")
    assert_refuses(lambda: moved(x, ()), "running on from a state")
    assert_refuses(lambda: moved(x[:, :0]), "a sequence of no tokens")
    y, state = moved(x)
    assert tuple(state) == (), "The state handed back is empty."
    changed = x.clone()
    changed[0] += 1.0
    assert_equal(moved(changed)[0][1:], y[1:], "rows beside a changed row")
    y.square().sum().backward()
    for name, parameter in moved.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient."
        assert bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite."
        assert bool((parameter.grad != 0).any()), f"the gradient of {name} is zero throughout."
    other = prepared(mixer, seed=seed + 1)
    other.load_state_dict(moved.state_dict())
    assert torch.equal(other(x)[0], y), "The state_dict does not restore the mixer."
    single = copy.deepcopy(moved).float()
    assert_equal(single(x.float())[0].double(), y.detach(), "float32 against float64", EPS[torch.float32])
    with torch.autocast(x.device.type, torch.bfloat16):
        half = single(x.float())[0]
    assert bool(half.isfinite().all()), "Not finite under bfloat16 autocast."
    if not packed:
        return
    resets = torch.zeros(3, length, dtype=torch.bool)
    resets[0, 0] = resets[1, length // 2] = resets[2, 1] = resets[2, length - 1] = True
    y = moved(x, resets=resets)[0]
    for b in range(3):
        cuts = sorted({0, *resets[b].nonzero().flatten().tolist(), length})
        pieces = [moved(x[b : b + 1, first:end])[0] for first, end in pairwise(cuts)]
        assert_equal(y[b : b + 1], torch.cat(pieces, 1), f"row {b} in pieces at {cuts}")
