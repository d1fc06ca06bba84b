"""The language model as an estimator: learns a text, goes on from a prompt."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hippodrome.data.text import open_text
from hippodrome.estimators.base import Estimator
from hippodrome.generate import text as continuation


class Generator(Estimator):
    """Learns a text and goes on from a prompt.

    Args:
        model: a mixer or a pattern, as for ``hippodrome race``.
        tokenizer: "bytes", the size of a vocabulary to learn, or the path of a ``tokenizer.json``.
        length: tokens a window.
        width: channels of the backbone.
        depth: its layers.
        budget: of training, such as "30s", "500steps".
        lr: peak learning rate.
        batch_size: windows a step.
        dropout: in the backbone.
        seed: of weights and order.
        device: cpu, cuda, mps or auto.
        folder: the run folder to train in; None trains in one that goes away with the estimator.
    """

    def __init__(
        self,
        model: str = "mamba2",
        tokenizer: str | int = "bytes",
        length: int = 256,
        width: int = 128,
        depth: int = 4,
        budget: str = "60s",
        lr: float = 4e-3,
        batch_size: int = 16,
        dropout: float = 0.0,
        seed: int = 0,
        device: str = "auto",
        folder: str | Path | None = None,
    ) -> None:
        self.model, self.tokenizer, self.length = model, tokenizer, length
        self.width, self.depth, self.budget, self.lr = width, depth, budget, lr
        self.batch_size, self.dropout, self.seed, self.device = batch_size, dropout, seed, device
        self.folder = folder

    def fit(self, text: str | Path) -> "Generator":
        """Learn a text, given as a string, or as the ``Path`` of a file or a folder of them."""
        if isinstance(text, Path):
            self._train(open_text(text, length=self.length, tokenizer=self.tokenizer, seed=self.seed))
            return self
        with tempfile.TemporaryDirectory(prefix="hippodrome-") as place:
            file = Path(place) / "text.txt"
            file.write_text(text, encoding="utf-8", newline="")
            task = open_text(file, length=self.length, tokenizer=self.tokenizer, seed=self.seed)
        self._train(task)
        return self

    def generate(
        self, prompt: str, max_new_tokens: int = 256, *, temperature: float = 0.8, seed: int = 0
    ) -> str:
        """What follows the prompt."""
        return "".join(self.stream(prompt, max_new_tokens, temperature=temperature, seed=seed))

    def stream(
        self,
        prompt: str,
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.8,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The same piece by piece; without end where ``max_new_tokens`` is None."""
        run = self._fitted()
        if run.tokenizer is None:
            raise ValueError(f"{run.folder} has no tokenizer.json, so text cannot be turned into tokens")
        return continuation(
            run.model,
            run.tokenizer,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
