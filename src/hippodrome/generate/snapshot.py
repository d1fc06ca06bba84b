"""Snapshots: where a model is in its texts, written to a file and taken up in another process.

The file is safetensors: the state's tensors by their path (``state.0.window``), the token ids read so far,
the logits after the last one. Its metadata name the model it is of and hold a checksum, so that a file of
another model, of other weights, or one that was cut off or changed is refused. The checksum guards against
damage; whoever can write the file can also make a new one.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.generate.room import with_room
from hippodrome.generate.rows import size
from hippodrome.models.base import Model

FORMAT = "hippodrome.state.1"
"""What the file is, and its version."""

_SAMPLES = 64
"""Elements of each weight that are part of a model's fingerprint."""


class Snapshot(NamedTuple):
    """Where a model is: everything that the next token depends on."""

    state: tuple
    """After all of ``ids``."""
    ids: Int[Tensor, "b t"]
    """The tokens read so far, prompts and what was written."""
    logits: Float[Tensor, "b vocab"] | None = None
    """After the last token."""
    written: int = 0
    """How many of ``ids`` at the end the model wrote: what some penalties count."""
    seed: int | None = None
    """Of the chance by which tokens are drawn."""
    drawn: int = 0
    """How often it was drawn from."""
    notes: Mapping[str, Any] = {}
    """Whatever else the caller wants back, as JSON; the messages of a chat, say."""


def save(
    path: str | Path, model: Model, snapshot: Snapshot, *, spec: Mapping[str, Any] | None = None
) -> None:
    """Writes a snapshot under a temporary name, flushes it to the disk, and renames it.

    With the ``spec`` that the model was built from, a model of another spec is refused later even where its
    tensors are the same.

    Raises:
        ValueError: a state and ids of different numbers of rows.
        OSError: the file cannot be written; one that stood there stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    rows, read = snapshot.ids.shape
    if size(snapshot.state) not in (0, rows):
        raise ValueError(
            f"a snapshot has token ids for each row of the state; got {rows} rows of ids and "
            f"{size(snapshot.state)} of the state."
        )
    state = with_room(model, snapshot.state, read, max(read, 1))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named(state, "state")}
    tensors["ids"] = snapshot.ids.detach().cpu().contiguous()
    if snapshot.logits is not None:
        tensors["logits"] = snapshot.logits.detach().cpu().contiguous()
    head = {
        **fingerprints(model, spec),
        "written": snapshot.written,
        "seed": snapshot.seed,
        "drawn": snapshot.drawn,
        "notes": snapshot.notes,
    }
    told = {"format": FORMAT, "head": json.dumps(head, ensure_ascii=False)}
    told["checksum"] = _checksum(tensors, told["head"])
    aside = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, aside, metadata=told)
        aside.chmod(0o600)  # what was said may be private
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{path} could not be written ({reason}). Name another file, or make room") from None


def load(
    path: str | Path,
    model: Model,
    *,
    spec: Mapping[str, Any] | None = None,
    max_length: int | None = None,
) -> Snapshot:
    """Reads a snapshot for the model that it was made with, onto the model's device.

    Args:
        path: of ``save``.
        model: with the same weights, in the same precision.
        spec: of the model, where it is known.
        max_length: tokens in all that the state is to have room for, those read included; None for a state
            that grows, or needs no room.

    Raises:
        ValueError: no snapshot, one that was cut off or changed, of another model or of other weights, or
            less room than it needs.
    """
    path = Path(path)
    tensors, head = _read(path)
    made = fingerprints(model, spec)
    other = [name for name in ("model", "spec") if name in made and head.get(name, made[name]) != made[name]]
    if other:
        raise ValueError(
            f"{path} is a state of another model: layers, sizes or precision differ. Open it with the model "
            "it was saved from."
        )
    if head.get("weights") != made["weights"]:
        raise ValueError(
            f"{path} is a state of this model with other weights, to which it means nothing. Open it with "
            "the weights it was saved from."
        )
    ids, logits = tensors.pop("ids", None), tensors.pop("logits", None)
    if ids is None or ids.dim() != 2 or ids.dtype != torch.int64:
        raise ValueError(f"{path} holds no token ids, so it is no whole state. Save it again.")
    rows, read = ids.shape
    device = next(model.parameters()).device
    like = model.init_state(rows, max(read, 1))
    wanted = dict(named(like, "state"))
    strange = sorted(set(wanted) ^ set(tensors))
    strange += [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if strange:
        raise ValueError(f"{path} is a state of another model: {', '.join(strange[:5])} do not fit.")
    state = filled(like, "state", {name: tensor.to(device) for name, tensor in tensors.items()})
    return Snapshot(
        with_room(model, state, read, max_length),
        ids,
        None if logits is None else logits.to(device),
        head.get("written", 0),
        head.get("seed"),
        head.get("drawn", 0),
        head.get("notes", {}),
    )


def fingerprints(model: nn.Module, spec: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A few letters each for the names, shapes and dtypes of a model's tensors, for their values, for a spec.

    Of the values some elements of each tensor are looked at, so that this takes milliseconds.
    """
    layout, weights = hashlib.sha256(), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        layout.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // _SAMPLES)][:_SAMPLES].cpu().contiguous()
        weights.update(some.view(torch.uint8).numpy().tobytes())
    found = {"model": layout.hexdigest()[:16], "weights": weights.hexdigest()[:16]}
    if spec is not None:
        told = json.dumps(spec, sort_keys=True, default=str)
        found["spec"] = hashlib.sha256(told.encode()).hexdigest()[:16]
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file and what its metadata say, both checked."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                what = told.get("format", "no state")
                raise ValueError(
                    f"{path} is no state that this program reads: it is {what}, and {FORMAT} was expected. "
                    "Name a file that --save-state, /save or snapshot.save wrote."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        if not path.is_file():
            raise ValueError(f"there is no file {path} with a state") from None
        raise ValueError(
            f"{path} cannot be read as a state: {' '.join(str(error).split())}. It may have been cut off; "
            "take another copy."
        ) from None
    if told.get("checksum") != _checksum(tensors, told.get("head", "")):
        raise ValueError(f"{path} was changed or damaged after it was saved. Take another copy.")
    return tensors, json.loads(told["head"])


def _checksum(tensors: Mapping[str, Tensor], head: str) -> str:
    digest = hashlib.sha256(head.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def named(state: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state by their paths."""
    if isinstance(state, Tensor):
        yield path, state
        return
    for name, part in zip(_names(state), state, strict=True):
        yield from named(part, f"{path}.{name}")


def filled(like: Any, path: str, tensors: Mapping[str, Tensor]) -> Any:
    """A state nested as another one, with tensors found by their paths."""
    if isinstance(like, Tensor):
        return tensors[path]
    parts = [filled(part, f"{path}.{name}", tensors) for name, part in zip(_names(like), like, strict=True)]
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def _names(state: Any) -> Sequence[Any]:
    return getattr(state, "_fields", range(len(state)))
