"""A model of ours as a checkpoint folder of another program: every tensor under its name there, in its dtype.

A model that came from such a folder goes back in the layout it came from, tensor by tensor the same bits
where nothing was trained. A model that began here can be written in a layout whose family knows how.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hippodrome import config as configuration
from hippodrome.checkpoints import renaming
from hippodrome.checkpoints.families import families
from hippodrome.checkpoints.files import PICKLED, SAFE
from hippodrome.checkpoints.origin import layouts
from hippodrome.checkpoints.reading import shapes
from hippodrome.train.checkpoint import write_folder

SHARD = 5 * 10**9
"""Bytes of the largest file of weights; a larger model is written in parts with an index."""


def origin_of(spec: Mapping[str, Any], layout: str, dtype: torch.dtype) -> dict[str, Any]:
    """What a model that began here would have come from, were it out of a folder of that layout.

    Raises:
        ValueError: no such layout, or one that cannot say what the model is.
    """
    full = configuration.validate(spec)
    for family in families().values():
        if layout not in family.LAYOUTS:
            continue
        config = family.write(full, layout) if hasattr(family, "write") else None
        if config is None:
            raise ValueError(
                f"a checkpoint in the layout {layout} cannot say what this model is: it is not one that the "
                f"layout's own program builds"
            )
        if "model_type" in config:
            # What the other program computes in where nobody says otherwise.
            config["dtype"] = str(dtype).removeprefix("torch.")
        return {"layout": layout, "config": config, "dtypes": {}}
    raise ValueError(f"there is no layout {layout!r}{configuration.suggest(layout, layouts())}")


def export(
    model: nn.Module,
    origin: Mapping[str, Any],
    folder: Path,
    fill: Callable[[Path], None] | None = None,
    *,
    dtype: torch.dtype | None = None,
    shard: int = SHARD,
) -> list[Path]:
    """Writes ``config.json`` and the weights of a model into a folder that is new or empty.

    Args:
        model: as the origin's configuration says it is.
        origin: the name of the layout, its ``config.json``, and the dtypes of its tensors.
        folder: made if need be; it appears whole or not at all.
        fill: writes what else belongs in the folder.
        dtype: of all tensors; None takes each one's own where it is known, else that which it has here.
        shard: largest file of weights, in bytes, where the layout's program reads several.

    Raises:
        ValueError: the folder is not empty.
        OSError: it cannot be written.
    """

    def write(place: Path) -> None:
        _weights(model, origin, place, dtype, shard)
        config = dict(origin["config"])
        if dtype is not None:
            # What other programs load the weights in, by either name of the field.
            said = [name for name in ("dtype", "torch_dtype") if name in config]
            config |= dict.fromkeys(said, str(dtype).removeprefix("torch."))
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (place / "config.json").write_text(text, encoding="utf-8")
        if fill is not None:
            fill(place)

    write_folder(folder, write)
    return sorted(folder.iterdir())


def _weights(
    model: nn.Module, origin: Mapping[str, Any], folder: Path, dtype: torch.dtype | None, shard: int
) -> None:
    """The tensors, in one file or in parts none of which is larger than ``shard``, one tensor at least."""
    from safetensors.torch import save_file

    known = {name: getattr(torch, kind) for name, kind in origin["dtypes"].items()}
    layout = _family(origin).LAYOUTS[origin["layout"]]
    if layout.pickled:
        held = {name: t.to(dtype or known.get(name, t.dtype)) for name, t in theirs(model, origin)}
        copies = {copy: held[source] for copy, source in layout.tied.items() if copy not in held}
        torch.save({**held, **copies}, folder / PICKLED)
        return
    files: list[dict[str, Tensor]] = [{}]
    where: dict[str, int] = {}
    room, total = shard, 0
    paths: list[Path] = []

    def flush() -> None:
        path = folder / f"part-{len(paths)}.safetensors"
        save_file(files[0], path, metadata={"format": "pt"})
        paths.append(path)
        files[0] = {}

    for name, tensor in theirs(model, origin):
        made = tensor.to(dtype or known.get(name, tensor.dtype)).contiguous()
        if files[0] and made.nbytes > room:
            flush()
            room = shard
        # A copy where it shares memory with another: the format has no room for views.
        files[0][name] = made.clone() if made.data_ptr() == tensor.data_ptr() else made
        where[name] = len(paths)
        room -= made.nbytes
        total += made.nbytes
    flush()
    if len(paths) == 1:
        paths[0].rename(folder / SAFE)
        return
    names = [f"model-{i + 1:05d}-of-{len(paths):05d}.safetensors" for i in range(len(paths))]
    for path, name in zip(paths, names, strict=True):
        path.rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: names[i] for name, i in sorted(where.items())},
    }
    text = json.dumps(index, indent=2) + "\n"
    (folder / f"{SAFE}.index.json").write_text(text, encoding="utf-8")


def _family(origin: Mapping[str, Any]) -> Any:
    """The family of the layout."""
    return next(f for f in families().values() if origin["layout"] in f.LAYOUTS)


def theirs(model: nn.Module, origin: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model under the names of its layout, one by one."""
    family = _family(origin)
    reading = family.read(origin["config"])
    names = renaming.table(family.LAYOUTS[origin["layout"]], shapes(model), reading.lists)
    values = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    waiting: dict[str, dict[int, Tensor]] = {}
    copies: dict[str, list[str]] = {}
    for copy, source in names.tied.items():
        if copy in origin["dtypes"] and copy not in names.names():
            copies.setdefault(source, []).append(copy)
    for one in names.made:
        for piece, tensor in renaming.parts(one, values[one.ours].detach().cpu()):
            held = waiting.setdefault(piece.name, {})
            held[piece.part] = tensor
            if len(held) < piece.of:
                continue
            parts = [held[i] for i in range(piece.of)]
            whole = parts[0] if len(parts) == 1 else torch.cat(parts, one.rule.dim)
            del waiting[piece.name]
            for name in (piece.name, *copies.get(piece.name, ())):
                yield name, whole
    if waiting:
        raise ValueError(f"the layout leaves a part of {sorted(waiting)[0]} open")
