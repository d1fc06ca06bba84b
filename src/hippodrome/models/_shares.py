"""What each part of a backbone has in a linear forecast that is read from its features."""

from jaxtyping import Float
from torch import Tensor, nn


def shares(
    head: nn.Module, features: Float[Tensor, "b c patches d"], backbone: nn.Module | None
) -> dict[str, Float[Tensor, "b c horizon"]]:
    """The head's forecast from the features of all patches, as terms that sum to it.

    A backbone whose channels belong to parts that do not meet says so by ``parts``, name -> (first, end)
    channel: then a term is what the head makes of one part's channels, the first with its bias. Otherwise,
    and where the head is rounded to int8 and has no weights to take apart, there is one term, "backbone".
    """
    parts: dict[str, tuple[int, int]] | None = getattr(backbone, "parts", None)  # type: ignore[assignment]
    if not parts or not isinstance(head, nn.Linear):
        return {"backbone": head(features.flatten(2))}
    weights = head.weight.unflatten(1, features.shape[2:])
    found = {
        name: features[..., first:end].flatten(2) @ weights[..., first:end].flatten(1).T
        for name, (first, end) in parts.items()
    }
    first = next(iter(found))
    return {**found, first: found[first] + head.bias}
