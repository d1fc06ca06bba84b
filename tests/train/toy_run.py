"""A small language task and model, and a program that trains it: what the tests of training share.

As a program, ``python toy_run.py FOLDER SETTINGS_AS_JSON [WORD ...]`` trains in FOLDER and writes the best
weights to FOLDER/final.pt. Words: ``resume``; ``dry`` for a model without dropout; ``kill=STEP``,
``interrupt=STEP`` and ``full=STEP`` send SIGKILL or SIGINT, or let files grow no more, at that step.
Given ``lives`` and a list of such argument lists as JSON, it lives each in a forked process of its own, one
after the other, and prints how each ended and what it said: importing once saves the tests a minute.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.mlp import GatedMLP
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.models.language import LanguageModel
from hippodrome.shapes import TokenBatch

VOCABULARY = 16


class Pairs(Dataset):
    """Random tokens, each followed by itself: half of what comes can be known."""

    def __init__(self, rows: int, seed: int, length: int = 12) -> None:
        drawn = torch.randint(
            0, VOCABULARY, (rows, length // 2), generator=torch.Generator().manual_seed(seed)
        )
        self.tokens = drawn.repeat_interleave(2, 1)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index]


def collate(items: list) -> TokenBatch:
    """Next-token prediction; rows of unequal length are padded, and the padding is not scored."""
    length = max(len(item) for item in items)
    tokens = torch.zeros(len(items), length, dtype=torch.long)
    targets = torch.full_like(tokens, -100)
    for i, item in enumerate(items):
        tokens[i, : len(item)] = item
        targets[i, : len(item) - 1] = item[1:]
    return TokenBatch(tokens, targets)


TRAIN, VALID = Pairs(50, 1), Pairs(21, 2)


def toy_model(dropout: float = 0.2, seed: int = 0) -> LanguageModel:
    """Two blocks of width 8 with dropout; always the same weights."""
    torch.manual_seed(seed)
    blocks = [Block(MinGRU(8), GatedMLP(8), dropout=dropout) for _ in range(2)]
    return LanguageModel(Stack(blocks), VOCABULARY)


def lives(arguments: list[list[str]]) -> None:
    """Each of the argument lists in a process of its own."""
    import tempfile
    import traceback

    from lightning.fabric import Fabric

    assert Fabric is not None  # imported once, for all
    ends = []
    for given in arguments:
        with tempfile.TemporaryFile("w+") as said:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                try:
                    main(given)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                    code = 1
                sys.stderr.flush()
                os._exit(code)
            status = os.waitpid(child, 0)[1]
            said.seek(0)
            ends.append([os.waitstatus_to_exitcode(status), said.read()])
    print(json.dumps(ends))


def main(arguments: list[str]) -> None:
    """Trains as told on the command line."""
    from hippodrome.train import loop
    from hippodrome.train.fit import fit
    from hippodrome.train.settings import TrainSettings

    loop.EVENT_SECONDS = 0.0
    folder, settings = Path(arguments[0]), TrainSettings(**json.loads(arguments[1]))
    words = dict(word.partition("=")[::2] for word in arguments[2:])

    def watch(event: dict) -> None:
        if event["step"] == int(words.get("kill", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        if event["step"] == int(words.get("interrupt", -1)):
            os.kill(os.getpid(), signal.SIGINT)
        if event["step"] == int(words.get("full", -1)):
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    model = toy_model(0.0 if "dry" in words else 0.2)
    result = fit(model, TRAIN, VALID, collate, settings, folder, resume="resume" in words, on_event=watch)
    if result.weights:
        torch.save(result.weights, folder / "final.pt")


if __name__ == "__main__":
    if sys.argv[1] == "lives":
        lives(json.loads(sys.argv[2]))
    else:
        main(sys.argv[1:])
