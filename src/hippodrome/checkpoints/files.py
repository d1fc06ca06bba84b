"""The files of a checkpoint folder: its configuration, and its tensors, which are read one by one."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


class Stored(NamedTuple):
    """A tensor of a checkpoint that is not read yet: its shape and dtype, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table. Raises ValueError in a sentence where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a table of names and values; got a {type(found).__name__}")
    return found


def stored(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder by name: safetensors, in one file or in parts, or a pickle read without code.

    Raises:
        ValueError: no weights, a part that is missing or broken, a name that two parts hold, or a pickle of
            more than tensors.
    """
    for name, opened in ((SAFE, _safe), (PICKLED, _pickled)):
        # The whole file first, as in transformers, which leaves an old index beside one that it writes anew.
        if (folder / name).exists():
            return opened(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _in_parts(index, opened)
    others = sorted(p.name for p in folder.glob("*") if p.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    found = f"; it has {', '.join(others[:4])}" if others else ""
    raise ValueError(
        f"{folder} holds no weights: expected {SAFE}, {PICKLED}, or an index of parts of one of them{found}"
    )


def _in_parts(index: Path, opened: Callable[[Path], dict[str, Stored]]) -> dict[str, Stored]:
    """The tensors of all parts that an index names; each tensor lies in the part that the index says."""
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
        raise ValueError(f"{index} has no weight_map from names of tensors to files")
    found: dict[str, Stored] = {}
    for part in sorted(set(where.values())):
        if Path(part).name != part:
            raise ValueError(f"{index} names {part!r}, which is not a file beside it")
        if not (index.parent / part).exists():
            raise ValueError(f"{index.parent} lacks {part}, which {index.name} names. Fetch that file too")
        inside = opened(index.parent / part)
        for name in inside:
            if where.get(name) != part:
                told = f"says {where[name]}" if name in where else "does not name it"
                raise ValueError(f"{part} holds {name}, and {index.name} {told}")
        found |= inside
    missing = sorted(set(where) - set(found))
    if missing:
        raise ValueError(f"{where[missing[0]]} lacks {missing[0]}, which {index.name} says it holds")
    return found


DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of numbers by their names in safetensors."""


def _safe(path: Path) -> dict[str, Stored]:
    """What a safetensors file holds. It is opened anew for each tensor, so that no page stays mapped."""
    from safetensors import SafetensorError, safe_open

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read, it is damaged or cut off: {error}") from None

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with opened() as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor

        return read

    found = {}
    with opened() as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            piece = file.get_slice(name)
            kind = DTYPES.get(piece.get_dtype())
            if kind is None:
                raise ValueError(f"{path}: {name} is of type {piece.get_dtype()}, which is not read here")
            found[name] = Stored(tuple(piece.get_shape()), kind, reader(name))
    return found


def _pickled(path: Path) -> dict[str, Stored]:
    """What a file of ``torch.save`` holds, read with ``weights_only``: nothing in it can run."""
    held = _unpickled(path)
    # What was read of a mapped file stays in memory until it is mapped anew, which takes a while.
    bound = path.stat().st_size // 40 if _is_archive(path) else None
    first = next(iter(held), None)
    current, read = ({} if bound is not None else held), [0]

    def reader(name: str) -> Callable[[], Tensor]:
        def give() -> Tensor:
            if bound is not None and (read[0] > bound or first not in current):
                current.clear()
                current.update(_unpickled(path))
                read[0] = 0
            read[0] += current[name].nbytes
            return current[name]

        return give

    return {name: Stored(tuple(tensor.shape), tensor.dtype, reader(name)) for name, tensor in held.items()}


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except Exception as error:
        # Unpickling meets whatever somebody wrote, and fails in as many ways.
        words = re.sub(r"\s+", " ", str(error).split("Please file")[0]).strip()
        why = words.partition("WeightsUnpickler error: ")[2] or words
        raise ValueError(
            f"{path} cannot be read as tensors alone, and nothing else of a pickle is: {why[:200]}. Ask for "
            f"{SAFE} instead"
        ) from None
    if not isinstance(held, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()
    ):
        raise ValueError(f"{path} holds something other than tensors by their names")
    return held


def _is_archive(path: Path) -> bool:
    """Whether the file is of the kind that can be mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
