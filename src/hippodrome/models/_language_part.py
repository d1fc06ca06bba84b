"""What a forecaster over segments takes of a language model: settings, and weights by their names there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hippodrome.models._prompts import spelling_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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
    """
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
