"""Texts to vectors: by a trained encoder, or the mean of the features of a language model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from hippodrome.generate.filling import token_ids
from hippodrome.models._padded import padded_features
from hippodrome.models._pooled import mean_and_last
from hippodrome.models.encoder import EncoderModel
from hippodrome.models.language import LanguageModel
from hippodrome.models.masked_language import MaskedLanguageModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@torch.no_grad()
def vectors(
    model: Any, tokenizer: "Tokenizer | None", texts: Sequence[str], batch_size: int = 32
) -> Float[Tensor, "n o"]:
    """The vectors of texts, of length 1, in their order.

    Args:
        model: an encoder; or a language model or masked one, of which the mean of the features is taken.
        tokenizer: of its tokens.
        texts: none of them empty.
        batch_size: texts at once.

    Raises:
        ValueError: another kind of model, one without a tokenizer, a text without a token, or letters that
            the tokenizer does not know.
    """
    if not isinstance(model, EncoderModel | LanguageModel | MaskedLanguageModel) or tokenizer is None:
        raise ValueError(
            "vectors of texts are those of an encoder, or of a language model or masked one of text; this is "
            "none. Train one with --kind encoder."
        )
    device = next(model.parameters()).device
    ids = [token_ids(tokenizer, text) for text in texts]
    empty = next((i for i, row in enumerate(ids) if not row), None)
    if empty is not None:
        raise ValueError(f"text {empty + 1} has no token. Leave it out.")
    # Rows of about one length together: less padding.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: list[Tensor] = [torch.empty(0)] * len(ids)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        rows = [torch.tensor(ids[i], device=device) for i in chosen]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        if isinstance(model, EncoderModel):
            made = model.encode(padded, lengths)
        else:
            embed: Any = model.embedding if isinstance(model, LanguageModel) else model._embed
            features, valid = padded_features(model.backbone, embed, padded, lengths)
            made = functional.normalize(mean_and_last(features, valid, lengths)[0], dim=-1)
        for i, vector in zip(chosen, made.float(), strict=True):
            found[i] = vector
    return torch.stack(found)
