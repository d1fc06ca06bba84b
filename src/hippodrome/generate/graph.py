"""One token of a whole model as one CUDA graph: a launch for all kernels, where Python would be the limit.

A graph repeats what was recorded, on the memory that it was recorded with: the ids lie in a buffer of its
own and the state in the tensors that ``advance_`` overwrites. Recording runs nothing and leaves the state.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hippodrome.generate._weights import Weights

WARM_UP = 3
"""Tokens that run before one is recorded: there kernels compile, check themselves and take work space."""


def refusal(ids: Tensor, in_place: bool) -> str | None:
    """Why tokens are not to be recorded, or None where they may be tried."""
    if not in_place:
        return "the model holds a state that grows with each token, so no two tokens run on the same memory."
    if ids.device.type != "cuda":
        return f"a CUDA graph runs on a CUDA device, and the tokens are on {ids.device}."
    return None


def record(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What replays a call, and where its output then lies.

    Raises:
        RuntimeError: the call reads a value back, waits, or does what else no graph can hold.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()
    return graph.replay, output


class Replay:
    """A recorded call on token ids.

    Args:
        call: from token ids to logits.
        ids: an example of them, of the shape that all later ones will have.
        model: whose weights the call reads.
    """

    def __init__(self, call: Callable[[Tensor], Tensor], ids: Tensor, model: nn.Module) -> None:
        self.call, self.ids = call, ids.clone()
        self._weights = Weights(model)
        self.replay, self.output = record(lambda: call(self.ids))

    def stale(self) -> bool:
        """Whether weights lie elsewhere by now; what is computed from them is computed by each replay."""
        return self._weights.replaced()

    def __call__(self, ids: Tensor) -> Tensor:
        """The logits, in memory of their own."""
        if ids.shape != self.ids.shape:
            return self.call(ids)
        self.ids.copy_(ids)
        self.replay()
        return self.output.clone()
