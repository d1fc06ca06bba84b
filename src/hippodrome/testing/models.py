"""The model contract as code: ``check_model`` holds any model to it, ours and a newcomer's alike."""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor

from hippodrome.models.base import Model
from hippodrome.shapes import Batch, LabelledBatch, PretextBatch, TokenBatch

EPS = 1e-9


def check_model(model: Model, batch: Batch, *, seed: int = 0) -> None:
    """Hold a model to the whole contract, in float64 to 1e-9 where numbers are compared.

    The model itself is not changed; a copy with all parameters moved a little is checked, so that a term that
    starts at zero counts too. Streams are checked from ``first_chunk`` inputs on, in multiples of ``chunk``.

    Args:
        model: the model.
        batch: one that fits it, of two rows or more.
        seed: of the moved parameters.

    Raises:
        AssertionError: with a sentence that says which part of the contract is broken and by how much.
    """
    moved, wide = prepared(model, seed), to_float64(batch)
    check_loss(moved, wide)
    check_metrics(moved, wide)
    check_groups(moved)
    check_stream(moved, wide)
    check_resets(moved, wide)
    check_padding(moved, wide)
    check_packing(moved, wide)
    check_files(moved, wide)
    half = copy.deepcopy(model).float().eval()
    assert bool(half.loss(batch).isfinite()), f"{_name(model)}: the loss is not finite in float32"


def prepared(model: Model, seed: int = 0) -> Model:
    """A copy in float64 with every parameter moved by a tenth of a normal number, in evaluation mode."""
    numbers = torch.Generator().manual_seed(seed)
    moved = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=numbers, dtype=torch.float64))
    return moved


def to_float64(batch: Any) -> Any:
    """The batch with its values in float64; token ids, lengths and resets as they are."""
    fields: list[Any] = [f.double() if isinstance(f, Tensor) and f.is_floating_point() else f for f in batch]
    return type(batch)(*fields)


def check_loss(model: Model, batch: Batch) -> None:
    """The loss is one finite number, and every parameter gets a finite gradient that is not all zero."""
    loss = model.loss(batch)
    assert loss.shape == (), f"{_name(model)}: the loss is one number; got shape {tuple(loss.shape)}"
    assert bool(loss.isfinite()), f"{_name(model)}: the loss is {float(loss)}"
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        assert grad is not None, f"{_name(model)}: {name} gets no gradient"
        assert bool(grad.isfinite().all()), f"{_name(model)}: the gradient of {name} is not finite"
        assert bool((grad != 0).any()), f"{_name(model)}: the gradient of {name} is zero everywhere"


def check_metrics(model: Model, batch: Batch) -> None:
    """Metrics hold the objective, carry no graph, and add up over batches of unequal size."""
    whole = model.metrics(batch)
    wanted = model.objective.metric
    assert wanted in whole, f"{_name(model)}: metrics hold {list(whole)}, not the objective {wanted!r}"
    assert model.tokens(batch) > 0, f"{_name(model)}: tokens counts {model.tokens(batch)} in a batch"
    one, others = model.metrics(rows(batch, slice(0, 1))), model.metrics(rows(batch, slice(1, None)))
    for name, mean in whole.items():
        assert not mean.total.requires_grad, f"{_name(model)}: the metric {name} carries a graph"
        count = one[name].count + others[name].count
        assert count == mean.count, f"{_name(model)}: counts of {name} add up to {count}, not {mean.count}"
        total = one[name].total + others[name].total
        _equal(total, mean.total, f"{_name(model)}: totals of {name} in parts")


def check_groups(model: Model) -> None:
    """Parameter groups hold parameters of the model, none of them twice."""
    own = {id(parameter) for parameter in model.parameters()}
    listed = [id(parameter) for group in model.parameter_groups() for parameter in group.parameters]
    assert set(listed) <= own, f"{_name(model)}: a parameter group holds a parameter of another model"
    assert len(set(listed)) == len(listed), f"{_name(model)}: a parameter is in two groups"


def check_stream(model: Model, batch: Batch) -> None:
    """One call, chunks, and steps where ``chunk`` is 1, give the same outputs and the same last state."""
    inputs, first, chunk = batch[0], model.first_chunk, model.chunk
    assert isinstance(inputs, Tensor)
    while inputs.shape[1] < first + 4 * chunk:
        inputs = torch.cat([inputs, inputs], 1)
    length = first + (inputs.shape[1] - first) // chunk * chunk
    inputs = inputs[:, :length]
    with torch.no_grad():
        whole, last = model(inputs)
        only, state = model.last(inputs)
        _equal(only, whole[:, -1], f"{_name(model)}: the last outputs alone")
        _same_state(state, last, f"{_name(model)}: the last outputs alone")
        for sizes in _cuts(length, first, chunk):
            outputs, state = _chunks(model, inputs, sizes)
            said = f"{_name(model)}: chunks of {sizes}"
            _same_end(model, outputs, whole, said)
            _same_state(state, last, said)
        if chunk == 1:
            latest, state = model(inputs[:, :first], model.init_state(inputs.shape[0], length))
            for i in range(first, length):
                latest, state = model.step(inputs[:, i], state)
            end = whole[:, -1] if first == 1 else whole
            _equal(latest, end, f"{_name(model)}: the last of {length} steps")
            _same_state(state, last, f"{_name(model)}: {length} steps")


def check_resets(model: Model, batch: Batch) -> None:
    """A reset is the start of a run of its own, or is refused with a sentence."""
    inputs = batch[0]
    assert isinstance(inputs, Tensor)
    length = inputs.shape[1]
    resets = torch.zeros(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    at = max(1, length // 2)
    resets[0, at] = True
    with torch.no_grad():
        try:
            outputs, _ = model(inputs, resets=resets)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            assert len(refusal) > 40, f"{_name(model)}: resets are refused without a sentence: {refusal}"
            return
        alone, _ = model(inputs[:, at:])
        plain, _ = model(inputs)
    _equal(outputs[0, at:], alone[0], f"{_name(model)}: a row behind its reset")
    _equal(outputs[0, :at], plain[0, :at], f"{_name(model)}: a row before its reset")
    _equal(outputs[1:], plain[1:], f"{_name(model)}: rows that were not reset")


def check_padding(model: Model, batch: Batch) -> None:
    """What stands behind the end of a row changes neither its loss nor its metrics."""
    if not isinstance(batch, LabelledBatch | PretextBatch):
        return
    valid = torch.arange(batch.inputs.shape[1], device=batch.inputs.device) < batch.lengths[:, None]
    filled = batch.inputs.clone()
    filled[~valid] = 1 if not filled.is_floating_point() else float("nan")
    other = batch._replace(inputs=filled)
    _equal(model.loss(other), model.loss(batch), f"{_name(model)}: the loss with other padding")
    for name, mean in model.metrics(batch).items():
        _equal(model.metrics(other)[name].total, mean.total, f"{_name(model)}: {name} with other padding")


def check_packing(model: Model, batch: Batch) -> None:
    """Rows of tokens packed into one score as they do apart, and padding at either side scores nothing."""
    if not isinstance(batch, TokenBatch) or batch.resets is not None:
        return
    many, length = batch.tokens.shape
    marks = torch.zeros(1, many * length, dtype=torch.bool, device=batch.tokens.device)
    marks[:, ::length] = True
    packed = TokenBatch(batch.tokens.reshape(1, -1), batch.targets.reshape(1, -1), marks)
    beside = torch.full_like(batch.targets[:, :3], -100)
    marks = torch.zeros(many, length + 6, dtype=torch.bool, device=batch.tokens.device)
    marks[:, [3, 3 + length]] = True
    padded = TokenBatch(
        torch.cat([torch.zeros_like(beside), batch.tokens, torch.ones_like(beside)], 1),
        torch.cat([beside, batch.targets, beside], 1),
        marks,
    )
    for said, other in (("packed into one row", packed), ("padded at both sides", padded)):
        _equal(model.loss(other), model.loss(batch), f"{_name(model)}: the loss of rows {said}")
        for name, mean in model.metrics(batch).items():
            _equal(model.metrics(other)[name].total, mean.total, f"{_name(model)}: {name} of rows {said}")


def check_files(model: Model, batch: Batch) -> None:
    """``state_dict`` and safetensors carry all that outputs depend on."""
    inputs = batch[0]
    with torch.no_grad():
        wanted, _ = model(inputs)
        for how in ("state_dict", "safetensors"):
            other = prepared(model, seed=1)
            if how == "state_dict":
                other.load_state_dict(copy.deepcopy(model.state_dict()))
            else:
                with tempfile.TemporaryDirectory() as folder:
                    save_model(model, str(Path(folder) / "model.safetensors"))
                    load_model(other, str(Path(folder) / "model.safetensors"))
            _equal(other(inputs)[0], wanted, f"{_name(model)}: outputs after a round trip by {how}")


def rows(batch: Any, piece: slice) -> Any:
    """Some rows of a batch; some pairs, with both rows of each, where a label is of two rows."""
    if isinstance(batch, LabelledBatch) and len(batch.inputs) == 2 * len(batch.labels):
        cut = batch._replace(labels=batch.labels[piece])
        first, last, _ = piece.indices(len(batch.labels))
        both = slice(2 * first, 2 * last)
        return cut._replace(
            inputs=batch.inputs[both],
            lengths=batch.lengths[both],
            dt=None if batch.dt is None else batch.dt[both],
        )
    return type(batch)(*(field if field is None else field[piece] for field in batch))


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a state, in order, however deep the tuples are nested."""
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from tensors(part)


def _chunks(model: Model, inputs: Tensor, sizes: list[int]) -> tuple[list[Tensor], Any]:
    state, outputs = model.init_state(inputs.shape[0], inputs.shape[1]), []
    for piece in inputs.split(sizes, 1):
        out, state = model(piece, state)
        outputs.append(out)
    return outputs, state


def _cuts(length: int, first: int, chunk: int) -> Iterator[list[int]]:
    """Ways to cut a stream: all at once, a short start, and small pieces."""
    rest = length - first
    yield [length]
    yield [first, rest]
    yield [first + chunk, *[chunk] * ((rest - chunk) // chunk)]


def _same_end(model: Model, outputs: list[Tensor], whole: Tensor, said: str) -> None:
    """Outputs of a model that speaks at each step join; of one that forecasts, the last one counts."""
    joined = torch.cat(outputs, 1) if model.first_chunk == 1 else outputs[-1]
    _equal(joined, whole, f"{said}: outputs")


def _same_state(state: Any, wanted: Any, said: str) -> None:
    """The states agree as far as they are of one shape: a cache may be longer than it has been filled."""
    for mine, theirs in zip(tensors(state), tensors(wanted), strict=True):
        if mine.shape == theirs.shape and mine.is_floating_point():
            _equal(mine, theirs, f"{said}: the last state")


def _equal(mine: Tensor, wanted: Tensor, said: str) -> None:
    mine, wanted = mine.detach(), wanted.detach()
    assert mine.shape == wanted.shape, f"{said}: shape {tuple(mine.shape)}, expected {tuple(wanted.shape)}"
    worst = float((mine - wanted).abs().max()) if mine.numel() else 0.0
    bound = EPS * max(float(wanted.abs().max()), 1e-300) if wanted.numel() else 0.0
    assert worst <= bound, f"{said}: off by {worst:.3g}, at most {bound:.3g} is allowed"


def _name(model: Model) -> str:
    return type(model).__name__
