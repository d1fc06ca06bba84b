"""What a model costs, by counting: parameters, bytes of state, arithmetic and bytes per token; no clock."""

import inspect
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hippodrome.layers.moe import MoE, idle_parameters
from hippodrome.layers.quantized import QuantizedEmbedding, Rounded
from hippodrome.models.base import Model
from hippodrome.shapes import Batch


class Cost(NamedTuple):
    """What one model costs, by counting.

    ``flops_per_token``: additions, multiplications and functions of one forward pass divided by its tokens,
    counted as ``count_flops`` says. ``state_bytes``: what one row carries from token to token after
    ``length`` tokens.
    ``bytes_per_token``: what decoding one token must read at least at batch 1: the weights and that state.
    Both are None for a model that reads later tokens too, which carries no state and decodes nothing.
    ``uncounted``: names of operators that did arithmetic for which no rule is known; empty when the count
    is whole.
    """

    parameters: int
    state_bytes: int | None
    flops_per_token: float
    bytes_per_token: int | None
    length: int
    uncounted: tuple[str, ...] = ()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts: a state, whatever its layers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def state_bytes(module: Any, length: int) -> int:
    """Bytes of the state of one row that has room for ``length`` tokens."""
    return sum(x.numel() * x.element_size() for x in tensors_in(module.init_state(1, length)))


def parameter_count(module: nn.Module) -> int:
    """Number of trained values, those held as int8 among them; tied ones count once."""
    held = [m.int8.numel() for m in module.modules() if isinstance(m, Rounded)]
    return sum(p.numel() for p in module.parameters()) + sum(held)


def active_parameters(module: nn.Module) -> int:
    """Number of trained values that one token goes through: of a mixture's experts those chosen alone."""
    return parameter_count(module) - idle_parameters(module)


def weight_bytes_read(module: nn.Module) -> int:
    """Bytes of weights one decoded token reads: all, but of a table that is only looked up one row, and of
    the experts of a mixture those that the token chooses.
    """
    tables = {m.weight: m for m in module.modules() if isinstance(m, nn.Embedding)}
    uses: dict[Tensor, int] = {}
    for m in module.modules():
        for p in m.parameters(recurse=False):
            uses[p] = uses.get(p, 0) + 1
    total = 0
    for p in module.parameters():
        looked_up_only = p in tables and uses[p] == 1 and not getattr(module, "tie", False)
        total += (p.shape[-1] if looked_up_only else p.numel()) * p.element_size()
    for m in module.modules():
        if isinstance(m, Rounded):
            looked_up_only = isinstance(m, QuantizedEmbedding) and not getattr(module, "tie", False)
            total += m.int8.shape[-1] + 4 if looked_up_only else m.int8.nbytes + m.scale_bits.nbytes
        if isinstance(m, MoE):
            total -= m.idle * (1 if isinstance(m.fc1, Rounded) else m.fc1.weight.element_size())
    return total


@torch.no_grad()
def cost(model: Model, batch: Batch, length: int | None = None) -> Cost:
    """Count what ``model`` costs on ``batch``.

    Args:
        model: any model; it is run once in evaluation mode.
        batch: a batch that fits it; its shape decides the length over which arithmetic is averaged.
        length: tokens of context at which the state is measured; the batch's own length when None.
    """
    rows = batch[0].shape[0]
    tokens = model.tokens(batch)
    length = max(1, tokens // rows) if length is None else length
    training = model.training
    model.eval()
    try:
        flops, uncounted = count_flops(lambda: model.loss(batch))
    finally:
        model.train(training)
    carried = state_bytes(model, length) if model.backbone.causal else None
    return Cost(
        parameters=parameter_count(model),
        state_bytes=carried,
        flops_per_token=flops / tokens,
        bytes_per_token=None if carried is None else weight_bytes_read(model) + carried,
        length=length,
        uncounted=uncounted,
    )


def count_flops(call: Callable[[], Any]) -> tuple[int, tuple[str, ...]]:
    """Arithmetic done by ``call``, and the names of operators without a rule.

    A matrix product or convolution counts 2 for each multiply-add (PyTorch's own formulas); attention
    counts its two products over the pairs it may look at, so t(t+1)/2 of them when causal; an elementwise
    function counts 1 for each output, a sum or mean 1 for each input, a softmax 5 and a norm 5 for each; a
    Fourier transform of n points counts 5 n log2 n (half of it when real); an operator of Hippodrome counts
    what its door's ``flops`` says. Copies, gathers and changes of type or shape count 0.
    """
    with _Counter() as counter:
        call()
    return counter.total, tuple(sorted(counter.uncounted))


_FREE = {
    *(
        "clone",
        "copy_",
        "copy",
        "fill_",
        "fill",
        "zero_",
        "zeros_like",
        "ones_like",
        "lift_fresh",
        "_to_copy",
    ),
    *(
        "where",
        "masked_fill",
        "masked_fill_",
        "nan_to_num",
        "bernoulli_",
        "isnan",
        "isinf",
        "eq",
        "ne",
        "lt",
        "le",
    ),
    *("gt", "ge", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not"),
}
_PER_OUTPUT = {
    "_softmax": 5,
    "_log_softmax": 5,
    "native_layer_norm": 5,
    "_fused_rms_norm": 5,
    "cumsum": 1,
    "cumprod": 1,
    "logcumsumexp": 3,
    "_addmm_activation": 1,
    "avg_pool1d": 1,
}
_PER_INPUT = {
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "prod",
    "var",
    "std",
    "var_mean",
    "linalg_vector_norm",
}
_FOURIER = {"_fft_r2c": 0.5, "_fft_c2r": 0.5, "_fft_c2c": 1.0}


class _Counter(TorchDispatchMode):
    """Counts what reaches the dispatcher; composite operators arrive already taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.total += self._flops(func, args, kwargs, out)
        return out

    def _flops(self, func: Any, args: tuple, kwargs: dict, out: Any) -> int:
        namespace, _, name = func._schema.name.partition("::")
        first = out[0] if isinstance(out, list | tuple) and out else out
        size = first.numel() if isinstance(first, Tensor) else 0
        if namespace == "hippodrome":
            return self._own(func, name, args, kwargs)
        if name.startswith("_scaled_dot_product") and "backward" not in name:
            return _attention(func, args, kwargs)
        if func._overloadpacket in flop_registry:
            return int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))
        if name in _FREE:
            return 0
        if name in _FOURIER:
            return _fourier(_FOURIER[name], name, args, first)
        if name in _PER_OUTPUT:
            return _PER_OUTPUT[name] * size
        if name in _PER_INPUT or torch.Tag.reduction in func.tags:
            return next((x.numel() for x in tensors_in(args)), 0)
        if torch.Tag.pointwise in func.tags:
            return size
        if name.endswith("_") and hasattr(torch.ops.aten, name[:-1]):
            functional = getattr(torch.ops.aten, name[:-1])
            if any(torch.Tag.pointwise in getattr(functional, o).tags for o in functional.overloads()):
                return size
        if name in ("_cudnn_rnn", "mkldnn_rnn_layer", "_thnn_fused_gru_cell"):
            self.uncounted.add(f"{namespace}::{name}")
        return 0

    def _own(self, func: Any, name: str, args: tuple, kwargs: dict) -> int:
        counted = _door_flops(func, name.rstrip("_"), args, kwargs)  # an op in place is its door's too
        if counted is None:
            self.uncounted.add(f"hippodrome::{name}")
        return counted or 0


def _attention(func: Any, args: tuple, kwargs: dict) -> int:
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    query, key, value = given["query"], given["key"], given["value"]
    rows, queries, keys = query.shape[0] * query.shape[1], query.shape[2], key.shape[2]
    pairs = queries * (queries + 1) // 2 + queries * max(0, keys - queries)
    pairs = pairs if given.get("is_causal") else queries * keys
    return rows * pairs * 2 * (query.shape[3] + value.shape[3])


def _fourier(factor: float, name: str, args: tuple, out: Tensor) -> int:
    axes = args[1]
    real = args[0] if name == "_fft_r2c" else out
    n = math.prod(real.shape[axis] for axis in axes)
    return int(factor * 5 * n * math.log2(max(n, 2)) * (real.numel() // max(n, 1)))


def _door_flops(func: Any, name: str, args: tuple, kwargs: dict) -> int | None:
    """The count of one of our operators: the letters of its door's shapes, read off this call's tensors."""
    try:
        module = import_module(f"hippodrome.ops.{name}")
    except ModuleNotFoundError:
        return None
    door, formula = getattr(module, name, None), getattr(module, "flops", None)
    if door is None or formula is None:
        return None
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    letters: dict[str, int] = {}
    for parameter in inspect.signature(door).parameters.values():
        tensor = given.get(parameter.name)
        options = [parameter.annotation, *get_args(parameter.annotation)]
        for shape in (str(option.dim_str).split() for option in options if hasattr(option, "dim_str")):
            if isinstance(tensor, Tensor) and tensor.dim() == len(shape):
                found = zip((letter.lstrip("*") for letter in shape), tensor.shape, strict=True)
                letters |= {k: v for k, v in found if k not in letters}
    wanted = inspect.signature(formula).parameters.values()
    if any(p.default is p.empty and p.name not in letters for p in wanted):
        return None
    return int(formula(**{p.name: letters[p.name] for p in wanted if p.name in letters}))
