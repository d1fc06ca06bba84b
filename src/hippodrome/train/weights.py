"""Weights in files and into models: written whole or not at all, refused by name where they do not fit."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hippodrome.layers.quantized import stand_in


def start(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts tensors in the place of those of the same names in a model, and leaves the others.

    Raises ValueError by name where the model has none of the name, or one of another shape.
    """
    there = model.state_dict()
    problems = _misfits(tensors, there)
    if problems:
        raise ValueError(f"the weights to start from do not fit the model: {_said(problems)}")
    model.load_state_dict(dict(tensors), strict=False)


def carried(source: nn.Module, target: nn.Module) -> dict[str, Tensor]:
    """What a model can begin with of a trained one that has the same backbone, by the names it has there.

    All of the backbone. Of the layer in front of it, table or linear map, what both have: the first rows of
    a table, the first channels of values; the others stay as they are drawn. Between models of one kind all
    other parameters of the same name and shape too.

    Raises:
        ValueError: the backbones are not the same, by name.
    """
    before, after = source.state_dict(), target.state_dict()
    inside = {name: tensor for name, tensor in before.items() if name.startswith("backbone.")}
    absent = [f"{name} is missing" for name in after if name.startswith("backbone.") and name not in inside]
    problems = [*absent, *_misfits(inside, after)]
    if problems:
        raise ValueError(f"the weights to start from are of another backbone: {_said(problems)}")
    found = dict(inside)
    if type(source) is type(target):
        own = {name for name, _ in source.named_parameters()}
        found |= {n: t for n, t in before.items() if n in own and n in after and t.shape == after[n].shape}
    names = [_front(before), _front(after)]
    for name, tensor in after.items():
        stem, _, leaf = name.rpartition(".")
        other = before.get(f"{names[0]}.{leaf}")
        if stem == names[1] and other is not None and other.dim() == tensor.dim():
            both = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, other.shape, strict=True))
            found[name] = tensor.clone()
            found[name][both] = other[both].to(tensor.dtype)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _front(tensors: Mapping[str, Tensor]) -> str:
    """The name of the layer in front of a backbone."""
    return next((name for name in ("embedding", "input") if f"{name}.weight" in tensors), "")


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A few letters that change where a name or a number does; empty for no tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16] if tensors else ""


def aliases(model: nn.Module) -> set[str]:
    """Names of tied tensors beside the first name of each: they need no second copy in a file."""
    first = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    every = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    return {name for name, _ in every} - first


def write(path: Path, tensors: Mapping[str, Tensor], leave_out: set[str]) -> None:
    """Writes safetensors under a temporary name, flushes, renames.

    Raises OSError in a sentence where the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if name not in leave_out}
    aside = path.with_name(f".{path.name}.tmp")
    try:
        save_file(kept, aside, metadata={"format": "pt"})
        shutil.copymode(path.parent / "config.json", aside)  # else no one but the owner could read it
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def load(model: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Puts a file's weights into a model; refuses by name what is missing, unknown, or of another shape.

    Floating numbers become float32; with ``dtype`` they stay what they are in the file, and those of buffers
    that no file holds become ``dtype``. Layers whose weights the file holds as int8 are put in the place of
    those in full. One tensor after the other: memory holds the weights once, and the file is not held open
    behind them.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            shapes = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
        stand_in(model, names)
        there = model.state_dict()
        own = {
            **dict(model.named_buffers(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
        }
        missing = sorted(set(there) - aliases(model) - set(names))
        problems = [*(f"{name} is missing" for name in missing), *_misfits(shapes, there)]
        if problems:
            raise ValueError(f"{path} does not fit the model: {_said(problems)}")
        # The largest first: while it is read it is there twice, which matters where all others are too.
        for name in sorted(names, key=lambda name: shapes[name].numel(), reverse=True):
            # Opened anew for each: what was read before would stay mapped as long as the file is open.
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() != own[name].is_floating_point():
                    kinds = f"{tensor.dtype}, the model's is {own[name].dtype}"
                    raise ValueError(f"{path} does not fit the model: {name} is {kinds}")
                changed = dtype is None and tensor.is_floating_point()
                own[name].data = tensor.to(torch.float32 if changed else tensor.dtype, copy=True)
                del tensor
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if dtype is not None:
        cast_unsaved(model, dtype)


def cast_unsaved(model: nn.Module, dtype: torch.dtype) -> None:
    """Another dtype for the buffers of fractions that no file holds."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name in module._non_persistent_buffers_set:
                module._buffers[name] = buffer.to(dtype)


def cannot_write(path: Path, error: Exception) -> OSError:
    """The error of a file that could not be written, with what to do."""
    reason = getattr(error, "strerror", None) or error
    return OSError(f"{path} could not be written ({reason}). Make room there, then resume")


def _misfits(found: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    """What of the tensors found is not among those there, or has another shape."""
    return [
        *(f"{name} is not in the model" for name in sorted(set(found) - set(there))),
        *(
            f"{name} has shape {tuple(found[name].shape)}, the model's is {tuple(there[name].shape)}"
            for name in sorted(set(found) & set(there))
            if found[name].shape != there[name].shape
        ),
    ]


def _said(problems: list[str]) -> str:
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more
