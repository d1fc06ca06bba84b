"""What a step remembers of its parameters: used again while nothing changes, and never after a change."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from hippodrome.mixers._memo import Memo
from hippodrome.mixers.lru import LRU
from hippodrome.mixers.s4d import S4D
from hippodrome.mixers.s5 import S5
from hippodrome.testing.ops import close


class Scale(nn.Module):
    """Counts how often its value is made."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("fixed", torch.tensor([3.0]))
        self.memo = Memo()
        self.made = 0

    def make(self):
        self.made += 1
        return self.weight * self.fixed

    def value(self, *settings):
        return self.memo.get(self, self.make, *settings)


def test_made_once_while_nothing_changes():
    module = Scale()
    with torch.no_grad():
        assert module.value() is module.value()
        module.value("other")
        module.value("other")
    assert module.made == 2


def test_gradients_are_never_cut():
    module = Scale()
    with torch.no_grad():
        module.value()
    module.value().sum().backward()
    torch.testing.assert_close(module.weight.grad, torch.tensor([3.0, 3.0]))
    assert module.made == 2


def adam(foreach, fused=False):
    def change(module):
        module.weight.grad = torch.ones_like(module.weight)
        torch.optim.Adam([module.weight], lr=0.1, foreach=foreach, fused=fused).step()

    return change


def write(module):
    with torch.no_grad():
        module.weight[0] = 7.0


def write_in_inference(module):
    with torch.inference_mode():
        module.weight.mul_(2.0)


def load(module):
    module.load_state_dict({"weight": torch.tensor([5.0, 6.0]), "fixed": torch.tensor([1.0])})


def load_by_assignment(module):
    module.load_state_dict({"weight": torch.ones(2), "fixed": torch.ones(1)}, assign=True)


def replace(module):
    module.weight = nn.Parameter(torch.tensor([8.0, 9.0]))


def replace_data(module):
    module.weight.data = torch.tensor([8.0, 9.0])


def widen_and_back(module):
    module.double()
    module.value()
    with torch.no_grad():
        module.weight.mul_(0.5)
    module.float()


CHANGES = [
    adam(True),
    adam(False),
    adam(False, fused=True),
    write,
    write_in_inference,
    load,
    load_by_assignment,
    replace,
    replace_data,
    nn.Module.double,
    widen_and_back,
    lambda module: module.fixed.add_(1.0),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__qualname__)
def test_every_change_is_seen(change):
    module = Scale()
    with torch.no_grad():
        before = module.value()
        change(module)
        after = module.value()
        expected = module.weight * module.fixed
    assert after is not before
    assert after.dtype == expected.dtype
    assert torch.equal(after, expected)


def test_an_address_used_twice_is_no_match():
    """Memory that the value was made from is held, so nothing else can come to lie there unseen."""
    module = Scale()
    with torch.no_grad():
        for i in range(50):
            module.weight.data = torch.full((2,), float(i))
            assert torch.equal(module.value(), torch.full((2,), 3.0 * i))


def test_what_cannot_be_watched_is_made_anew():
    with torch.inference_mode():
        module = Scale()
        module.value()
        module.weight.mul_(2.0)
        assert torch.equal(module.value(), torch.tensor([6.0, 12.0]))
    assert module.made == 2


def test_parametrizations_are_followed():
    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    module = Scale()
    nn.utils.parametrize.register_parametrization(module, "weight", Twice())
    with torch.no_grad():
        module.value()
        module.parametrizations.weight.original.fill_(1.0)
        assert torch.equal(module.value(), torch.tensor([6.0, 6.0]))


def test_function_transforms_see_their_own_parameters():
    module = Scale()

    def value(weight):
        with torch.no_grad():
            return torch.func.functional_call(module, {"weight": weight}, (), {})

    module.forward = module.value
    with torch.no_grad():
        module.value()
    assert torch.equal(value(torch.tensor([1.0, 1.0])), torch.tensor([3.0, 3.0]))
    mapped = torch.vmap(value)(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert torch.equal(mapped, 3 * torch.eye(2))


def test_copies_and_pickles_are_empty():
    module = Scale()
    with torch.no_grad():
        module.value()
        for other in (copy.deepcopy(module), copy.copy(module.memo), pickle.loads(pickle.dumps(module))):
            memo = other.memo if isinstance(other, Scale) else other
            assert memo._kept is None
        other = copy.deepcopy(module)
        other.weight.fill_(0.0)
        assert torch.equal(other.value(), torch.zeros(2))
        assert torch.equal(module.value(), torch.tensor([3.0, 6.0]))
    assert set(module.state_dict()) == {"weight", "fixed"}


def test_threads_share_one():
    module = Scale()

    def work(_):
        with torch.no_grad():
            return module.value().clone()

    with ThreadPoolExecutor(4) as pool:
        for value in pool.map(work, range(200)):
            assert torch.equal(value, torch.tensor([3.0, 6.0]))


@pytest.mark.parametrize("kind", [S4D, S5, LRU])
def test_a_step_after_a_step_of_training_uses_the_new_numbers(kind):
    mixer = kind.example().double()
    x = torch.randn(3, 4, mixer.d_model, dtype=torch.float64)
    optimizer = torch.optim.AdamW(mixer.parameters(), lr=0.05)
    previous = None
    for _ in range(3):
        with torch.no_grad():
            state = mixer.init_state(3)
            outputs = []
            for t in range(4):
                y, state = mixer.step(x[:, t], state)
                outputs.append(y)
        y = torch.stack(outputs, 1)
        assert previous is None or (y - previous).abs().max() > 1e-3
        previous = y
        expected, _ = mixer(x)
        close(y, expected.detach(), 1e-11, "step against a forward with gradients")
        expected.square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [S4D, S5, LRU])
def test_steps_discretize_once(kind, monkeypatch):
    mixer, made = kind.example(), []
    discretize = mixer.discretize
    monkeypatch.setattr(mixer, "discretize", lambda *a: made.append(1) or discretize(*a))
    x = torch.randn(2, mixer.d_model)
    with torch.no_grad():
        state = mixer.init_state(2)
        for _ in range(5):
            _, state = mixer.step(x, state)
        assert len(made) == 1
        mixer.choose_discretization("bilinear" if kind is not LRU else "zoh")
        mixer.step(x, state)
    assert len(made) == 2
    assert not any("memo" in name for name in mixer.state_dict())
