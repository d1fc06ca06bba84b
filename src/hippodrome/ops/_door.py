"""How a door picks the backend that runs a call, and says why none could."""

from types import ModuleType

from torch import Tensor


def choose(
    op: str, backends: tuple[ModuleType, ...], forced: str | None, *tensors: Tensor | None
) -> ModuleType:
    """The first backend that can run these tensors, or the one forced by name.

    A backend is a module with ``NAME`` and ``refusal(*tensors) -> None | sentence``, which looks at
    dtype, device and static shape only, never at values.

    Raises:
        ValueError: the forced name is unknown, or every candidate refuses; the message lists each refusal.
    """
    names = [backend.NAME for backend in backends]
    if forced is not None and forced not in names:
        raise ValueError(f"{op}: there is no backend {forced!r}; expected one of {', '.join(names)}.")
    refusals = []
    for backend in backends:
        if forced is not None and forced != backend.NAME:
            continue
        sentence = backend.refusal(*tensors)
        if sentence is None:
            return backend
        refusals.append(f"{backend.NAME}: {sentence}")
    raise ValueError(f"{op}: no backend can run this call. " + " ".join(refusals))
