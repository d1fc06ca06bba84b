"""Generation: sampled continuations of any model that maps tokens to logits, streamed in constant memory."""

from hippodrome.generate.sampling import Sampler
from hippodrome.generate.stream import generate, prefill, text

__all__ = ["Sampler", "generate", "prefill", "text"]
