"""Generation: continuations of any model that maps tokens to logits, streamed in constant memory."""

from hippodrome.generate.beam import Beam, beams
from hippodrome.generate.continuations import Continuations, Piece, pieces
from hippodrome.generate.sampling import Chooser, Chosen, Sampler
from hippodrome.generate.stream import generate, prefill, text

__all__ = [
    "Beam",
    "Chooser",
    "Chosen",
    "Continuations",
    "Piece",
    "Sampler",
    "beams",
    "generate",
    "pieces",
    "prefill",
    "text",
]
