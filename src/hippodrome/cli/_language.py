"""A trained language model put into a forecaster over segments."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def with_language(
    folder: Path, spec: dict[str, Any], beside: list[str]
) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """The spec with the language model of a run or checkpoint in it, and the weights to begin with.

    ``beside`` names options that were given and say of a backbone what the language model says. Raises
    ValueError in a sentence for those, and where the folder holds no language model.
    """
    from hippodrome import checkpoints
    from hippodrome.models import _language_part

    if beside:
        raise ValueError(f"--language brings the backbone: leave {', '.join(beside)} out")
    run = checkpoints.open_model(folder)
    return _language_part.with_language(spec, run.model, run.spec, run.tokenizer)
