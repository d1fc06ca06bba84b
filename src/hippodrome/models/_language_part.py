"""What a forecaster over segments takes of a language model: settings, and weights by their names there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hippodrome.models._prompts import spelling_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def with_language(
    spec: Mapping[str, Any],
    language: nn.Module,
    language_spec: Mapping[str, Any],
    tokenizer: "Tokenizer | None",
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The spec of a forecaster over segments with a language model in it, and the weights it begins with.

    ``frozen`` and ``prompts`` are true where ``spec`` does not say; its backbone gives way.

    Raises:
        ValueError: a spec of another kind of forecaster, and as ``language_settings`` and
            ``language_tensors``.
    """
    if spec.get("kind") != "token_forecasting":
        raise ValueError(
            f"a language model reads for a forecaster over segments; got a model of kind "
            f"{spec.get('kind', 'forecasting')!r}. Take the recipe smetimes, or leave the language model out."
        )
    chosen = {name: bool(spec.get(name, True)) for name in ("frozen", "prompts")}
    settings = language_settings(language_spec, tokenizer, **chosen)
    return {**spec, **settings}, language_tensors(language, settings)


def language_settings(
    spec: Mapping[str, Any], tokenizer: "Tokenizer | None", *, frozen: bool = True, prompts: bool = True
) -> dict[str, Any]:
    """The part of a ``token_forecasting`` spec that a language model decides.

    Args:
        spec: of the language model.
        tokenizer: what makes its tokens of text; None where they are bytes.
        frozen: whether its weights stay as they are.
        prompts: whether it reads prompts too.

    Raises:
        ValueError: a spec of another kind, or a tokenizer that cannot spell prompts.
    """
    if spec.get("kind") != "language":
        raise ValueError(
            f"the forecaster reads with a language model; got a model of kind {spec.get('kind')!r}. Name a "
            "run of hippodrome train on text, or a checkpoint."
        )
    settings = {
        "kind": "token_forecasting",
        "backbone": spec["backbone"],
        "frozen": frozen,
        "prompts": prompts,
    }
    if not prompts:
        return settings
    settings |= {"vocab_size": spec["vocab_size"], "embedding_scale": spec.get("embedding_scale", 1.0)}
    if tokenizer is not None:
        settings["spelling"] = spelling_of(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    return settings


def language_tensors(language: nn.Module, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that the forecaster of ``language_settings`` begins with, by their names in it.

    Those of the backbone, of the embedding where there are prompts, and the backbone's once more for the
    reader of prompts where the backbone itself trains.

    Raises:
        ValueError: weights in int8.
    """
    if any(tensor.dtype == torch.int8 for tensor in language.state_dict().values()):
        raise ValueError(
            "this language model has its weights in int8, and a forecaster reads them in full: take the run "
            "that it was made of."
        )
    there = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().clone()
        for name, tensor in language.state_dict().items()
    }
    inside = {name: tensor for name, tensor in there.items() if name.startswith("backbone.")}
    found = dict(inside)
    if settings["prompts"]:
        found["embedding.weight"] = there["embedding.weight"]
        if not settings["frozen"]:
            found |= {f"reader.{name.removeprefix('backbone.')}": t.clone() for name, t in inside.items()}
    return found
