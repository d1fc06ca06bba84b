"""From logits to a token: greedy, temperature, and the three ways to cut off the tail."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Sampler(NamedTuple):
    """How the next token is chosen. The cuts apply one after the other, in the order of the fields.

    ``temperature`` divides the logits; 0 takes the likeliest token. ``top_k`` keeps the k likeliest (Fan et
    al. 2018, arXiv 1805.04833, section 5.4). ``top_p`` keeps the fewest whose probabilities add up to p
    (Holtzman et al. 2020, arXiv 1904.09751, section 3.1). ``min_p`` keeps those at least that part as likely
    as the likeliest (Nguyen et al. 2024, arXiv 2407.01082, section 3).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def check(self) -> None:
        """Raises ValueError where a number is out of its range."""
        rules = (
            ("temperature", "0 or more", self.temperature >= 0),
            ("top_k", "1 or more", self.top_k is None or self.top_k >= 1),
            ("top_p", "above 0 and at most 1", self.top_p is None or 0 < self.top_p <= 1),
            ("min_p", "from 0 to 1", self.min_p is None or 0 <= self.min_p <= 1),
        )
        for name, rule, holds in rules:
            if not holds:
                raise ValueError(f"{name} is {rule}; got {getattr(self, name)}")

    def choose(
        self, logits: Float[Tensor, "b vocab"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "b"]:
        """One token id for each row. Draws from ``generator`` where there is anything to draw."""
        if self.temperature == 0 or self.top_k == 1:
            return logits.argmax(-1)
        probabilities = self.probabilities(logits)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    def probabilities(self, logits: Float[Tensor, "b vocab"]) -> Float[Tensor, "b vocab"]:
        """The distribution that is drawn from, in float32 at least; ``temperature`` is above 0."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, places = logits.softmax(-1).sort(-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), -torch.inf)
        chances = logits.softmax(-1)
        if self.min_p is not None:
            chances = chances * (chances >= self.min_p * chances.amax(-1, keepdim=True))
            chances = chances / chances.sum(-1, keepdim=True)
        return chances
