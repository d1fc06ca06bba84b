"""What tests of served text share: a tokenizer of bytes, tiny models of it, and what they write alone."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate.decoding import TextStream
from hippodrome.generate.sampling import Chooser
from hippodrome.models.language import LanguageModel

WORDS = 257
END = 256


def letters():
    """A tokenizer of single bytes, and an end."""
    marks = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({mark: i for i, mark in enumerate(marks)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def build(*mixers, words=WORDS):
    torch.manual_seed(3)
    model = LanguageModel(Stack([Block(mixer) for mixer in mixers]), words).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


@torch.no_grad()
def alone(model, request, row=0):
    """The tokens that a row gets by itself, a step at a time."""
    seed = None if request.seed is None else request.seed + row
    chooser = Chooser(request.sampler, vocab_size=WORDS, seed=seed, prompt=request.ids)
    logits, state = model.last(torch.tensor([request.ids]))
    made = []
    while True:
        made.append(chooser.choose(logits[0]).id)
        if made[-1] in request.ends or len(made) == request.max_tokens:
            return made
        logits, state = model.step(torch.tensor(made[-1:]), state)


def spelt(ids):
    stream = TextStream(letters())
    return "".join(map(stream.push, ids)) + stream.flush()


def fallback_tokenizer(words: list[str]) -> Tokenizer:
    """One with single bytes that drops the space at the beginning of a text, as those of Llama do."""
    ids = {word: i for i, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer
