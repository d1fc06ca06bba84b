"""StNN: what a window holds, at borders too, its dense twin, its size, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.stnn import StNN
from hippodrome.testing.mixers import check_mixer


def test_the_output_is_that_of_dense_maps_over_the_window_newest_first() -> None:
    mixer = StNN(3, delays=4, size=32, factors=3).double()
    for layer in mixer.maps:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 9, 3).double()
    first, second, last = mixer.maps
    v = x[0, 3:7].flip(0).flatten()
    v = F.pad(v, (0, 20)) + F.leaky_relu(first.matrix() @ v + first.bias, 0.01)
    v = v + F.leaky_relu(second.matrix() @ v + second.bias, 0.01)
    torch.testing.assert_close(mixer(x)[0][0, 6], last.matrix() @ v + last.bias, atol=1e-12, rtol=1e-12)


def test_no_window_crosses_the_border_of_a_trajectory() -> None:
    mixer = StNN(2, delays=5)
    x, marks = torch.randn(1, 10, 2), torch.zeros(1, 10, dtype=torch.bool)
    marks[0, 4] = True
    y, state = mixer(x, resets=marks)
    changed = x.clone()
    changed[:, :4] += 7.0
    assert torch.equal(mixer(changed, resets=marks)[0][:, 4:], y[:, 4:])
    late = torch.zeros_like(marks)
    late[0, 8] = True
    assert mixer(x, resets=late)[1].window[0, :2].abs().max() == 0
    assert torch.equal(state.window, x[:, 6:])


def test_vectors_are_a_power_of_two_and_parameters_grow_like_them() -> None:
    assert StNN(3, delays=8).size == 32

    def count(size: int) -> int:
        return sum(p.numel() for p in StNN(3, delays=8, size=size).parameters())

    assert count(1024) / count(512) == pytest.approx(2.0, rel=0.03)
    dense = sum(p.numel() for p in StNN(3, delays=8, size=512, dense=True).parameters())
    assert dense == 24 * 512 + 512**2 + 512 * 3 + 2 * 512 + 3
    assert count(512) < 0.05 * dense


def test_the_dense_twin_keeps_the_contract() -> None:
    check_mixer(StNN(2, delays=3, dense=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delays": 0}, "delays=0"),
        ({"layers": 0}, "layers=0"),
        ({"size": 48}, "32 or more; got size=48"),
        ({"size": 16}, "8 tokens of 3, so 32 or more; got size=16"),
    ],
)
def test_what_cannot_be_built(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StNN(3, **options)
