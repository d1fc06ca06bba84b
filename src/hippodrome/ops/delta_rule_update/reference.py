"""Definition of one token of the delta rule: the op's own, of a sequence of one."""

from torch import Tensor

from hippodrome.ops.delta_rule.reference import delta_rule

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def delta_rule_update(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> Tensor:
    """The output; arguments as at the door."""
    gate = None if log_decay is None else log_decay[:, None]
    y, last = delta_rule(q[:, None], k[:, None], v[:, None], beta[:, None], gate, state, None)
    state.copy_(last)
    return y[:, 0]
