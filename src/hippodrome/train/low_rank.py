"""Fine-tuning by corrections of low rank: put in by name, trained alone, written aside, merged at the end."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hippodrome.layers.low_rank import LowRank, refusal
from hippodrome.train.checkpoint import write_atomically
from hippodrome.train.settings import LowRankSettings

FILE = "adapter.safetensors"
"""Where a run folder holds the corrections alone; ``model.safetensors`` holds the weights they are in."""


def insert(model: nn.Module, settings: LowRankSettings, seed: int = 0) -> list[str]:
    """Freezes a model and puts a correction around every linear map that ``settings.on`` names.

    A name fits a map whose dotted name it is, or the end of it (``mixer.in_proj``, ``in_proj``), ``*`` and
    ``?`` standing for letters; numbers at the end of a map's name may be left out. A map that stands in
    several places gets one correction. What ``settings.also`` names in the same way trains as it is. Returns
    the names of the maps.

    Raises:
        ValueError: a name that fits no linear map, with those there are, or a map that takes none; a name of
            ``also`` that fits nothing.
    """
    maps, whole = chosen(model, settings)
    # The frozen model first: what is put in afterwards is all that trains.
    model.requires_grad_(False)
    for module in whole:
        module.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    made: dict[int, LowRank] = {}
    for name, base in maps.items():
        if id(base) not in made:
            made[id(base)] = LowRank(base, settings.rank, settings.alpha, generator)
        _put(model, name, made[id(base)])
    return list(maps)


def chosen(model: nn.Module, settings: LowRankSettings) -> tuple[dict[str, nn.Linear], list[nn.Module]]:
    """The maps by name that ``insert`` corrects, and the modules that train whole; the model stays as it is.

    Raises:
        ValueError: as ``insert``.
    """
    there = {name: module for name, module in _modules(model) if isinstance(module, nn.Linear)}
    maps: dict[str, nn.Linear] = {}
    for pattern in settings.on:
        fitting = [name for name in there if _fits(pattern, name)]
        if not fitting:
            kinds = sorted({_bare(name).rpartition(".")[2] for name in there})
            raise ValueError(
                f"no linear map of the model is called {pattern!r}; it has {', '.join(kinds) or 'none'}. "
                "Name some of them with -s lora.on=NAME,NAME"
            )
        maps |= {name: there[name] for name in fitting}
    for name, base in maps.items():
        refused = refusal(base, settings.rank)
        if refused is not None:
            raise ValueError(f"{name}: {refused}")
    whole: list[nn.Module] = []
    for pattern in settings.also:
        found = [module for name, module in _modules(model) if name and _fits(pattern, name)]
        if not found:
            raise ValueError(f"nothing in the model is called {pattern!r}. Leave it out of -s lora.also")
        whole += found
    return maps, whole


def parts(model: nn.Module) -> dict[str, Tensor]:
    """What trains, by its name in the state dict: corrections, and what ``also`` names."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def frozen(model: nn.Module) -> set[str]:
    """Names in the state dict of the parameters that do not train."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, value in named if not value.requires_grad}


def merge(model: nn.Module) -> None:
    """Writes every correction into its map, which takes its old place. What was frozen stays so."""
    found = {name: module for name, module in _modules(model) if isinstance(module, LowRank)}
    done = {id(module): module.merged() for module in dict.fromkeys(found.values())}
    for name, module in found.items():
        _put(model, name, done[id(module)])


def write(folder: Path, model: nn.Module, settings: LowRankSettings) -> None:
    """Writes the corrections of a model into ``adapter.safetensors``, and the settings they were made by.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in parts(model).items()}
    said = {"format": "pt", "low_rank": json.dumps(settings.model_dump(mode="json"))}
    content = save(tensors, metadata=said)
    write_atomically(folder / FILE, lambda file: file.write(content))


def apply(model: nn.Module, path: str | Path) -> None:
    """Merges the corrections in a file into the weights they were trained for.

    Raises:
        ValueError: a file that cannot be read, is no such file, or is of another model, by name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("low_rank")
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if said is None:
        raise ValueError(f"{path} holds no corrections of low rank. Name an {FILE} of a run with --lora")
    insert(model, LowRankSettings.model_validate_json(said))
    wanted = parts(model)
    wrong = [name for name in sorted({*wanted, *tensors}) if not _same(wanted.get(name), tensors.get(name))]
    if wrong:
        raise ValueError(f"{path} is of another model: {', '.join(wrong[:3])} do not fit in number or shape")
    model.load_state_dict(tensors, strict=False)
    merge(model)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module under every name it has."""
    return model.named_modules(remove_duplicate=False)


def _bare(name: str) -> str:
    """A dotted name without the numbers at its end: in_proj.0 is in_proj."""
    pieces = name.split(".")
    while len(pieces) > 1 and pieces[-1].isdigit():
        pieces.pop()
    return ".".join(pieces)


def _fits(pattern: str, name: str) -> bool:
    return any(fnmatchcase(one, end) for one in (name, _bare(name)) for end in (pattern, f"*.{pattern}"))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape
