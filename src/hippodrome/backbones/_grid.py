"""Mixers over pictures: a row of tokens is one grid of points, rows one after the other."""

from abc import abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.backbones._whole import check_whole
from hippodrome.shapes import Resets, Sequence, TimeSteps


class GridMixer(NotCausal):
    """A mixer that reads a row as one whole grid of ``sizes`` points, without state, resets and time.

    A member supplies ``mixed``.
    """

    accepts_resets = False
    sizes: list[int]

    @abstractmethod
    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """What a grid becomes, its points as tokens in C order."""

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole grid, its points as tokens in C order; the state handed back is empty.

        Raises:
            ValueError: a state, resets or dt is given, or the tokens are not as many as the grid's points.
        """
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        check_whole(type(self).__name__, x, self.sizes, resets=resets)
        return self.mixed(x), ()


def check_grid(owner: str, sizes: list[int]) -> list[int]:
    """Rows and columns of a grid.

    Raises:
        ValueError: not two numbers of 1 or more.
    """
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"{owner} reads a grid of sizes [rows, columns], 1 or more each; got {list(sizes)}.")
    return list(sizes)


def over_grid(layer: nn.Module, x: Float[Tensor, "b t d"], sizes: list[int]) -> Float[Tensor, "b t2 d2"]:
    """A two-dimensional convolution over the points of a row, channels innermost before and after.

    In memory the channels stay innermost, which is how PyTorch's convolutions on a CPU are fastest.
    """
    picture = x.unflatten(1, sizes).permute(0, 3, 1, 2)
    return layer(picture).permute(0, 2, 3, 1).flatten(1, 2)
