"""DNA and proteins: FASTA and GenBank files as letters, with places to be filled in."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hippodrome.data.base import Task, fault
from hippodrome.data.masked import LENGTH, RATE, Masking, cut, masked_task, shares


class Alphabet(NamedTuple):
    """Token ids of letters: ``words`` in the order of their ids, and which of them are asked for."""

    name: str
    words: tuple[str, ...]
    asked: str
    unknown: str
    mask: str
    complement: dict[str, str]


DNA = Alphabet(
    "DNA",
    ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", *"ACGTN"),
    "ACGT",
    "[UNK]",
    "[MASK]",
    {"A": "T", "C": "G", "G": "C", "T": "A"},
)
"""The twelve ids of the published Caduceus models (Schiff et al. 2024, arXiv 2403.03234)."""

PROTEIN = Alphabet(
    "proteins",
    (
        *("<cls>", "<pad>", "<eos>", "<unk>"),
        *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
        *("<null_1>", "<mask>"),
    ),
    "LAGVSERTIDPKQNFYMHWC",
    "<unk>",
    "<mask>",
    {},
)
"""The thirty-three ids of the published ESM-2 models (Lin et al. 2023, Science 379)."""

NUCLEOTIDES = frozenset("ACGTUNRYSWKMBDHV-*")
"""Letters of nucleic acids with those that stand for several; the last two for gaps."""
LONGEST = 10_000
"""So many letters decide between DNA and proteins."""


class Records(NamedTuple):
    """Letters of all records end to end, upper case, as bytes (n,), where each begins, and their names."""

    letters: np.ndarray
    begins: np.ndarray
    names: list[str]


def open_sequences(
    path: str | Path,
    *,
    length: int = LENGTH,
    seed: int = 0,
    mask_rate: float = RATE,
    eval_rate: float = RATE,
    span: int | None = None,
    corruption: list[float] | None = None,
) -> Task:
    """A FASTA or GenBank file (``.gz`` too) of DNA, RNA or proteins, letters of which are to be filled in.

    Records are laid end to end with a reset at each start, and the whole is cut once: 90 % of the letters
    train, 5 % validate, 5 % test. DNA has the letters A, C, G, T (U reads as T) and N for all others, of
    which only the first four are asked for; ``facts`` hold what stands opposite each id. Of proteins the
    twenty amino acids are asked for. Which of the two it is, the letters say.

    Args:
        path: the file.
        length: letters a window.
        seed: of the offsets and the masks.
        mask_rate: share of the letters that are asked for in training.
        eval_rate: the same in validation and test.
        span: how many stand together; None for each by itself.
        corruption: of the letters asked, the shares that read as hidden, as any letter, and as they are; None
            takes 0.8, 0.1, 0.1.

    Raises:
        ValueError: a file that is neither format, a letter that is none (it names the line), too few letters
            for the windows, or rates, a span or shares that cannot be.
    """
    path = Path(path)
    if length < 1:
        raise ValueError(f"a window holds at least one letter; got length {length}. Ask for 1 or more.")
    records = read_records(path)
    found = frozenset(np.unique(records.letters[:LONGEST]).tobytes().decode())
    alphabet = DNA if found <= NUCLEOTIDES else PROTEIN
    tokens = encode(alphabet, records.letters)
    streams = cut(tokens, records.begins)
    if len(streams[0].tokens) < length or min(len(stream.tokens) for stream in streams) < 1:
        raise fault(
            path,
            f"{length} letters or more to train on (90 % of all) and some in each of the other parts",
            ", ".join(str(len(stream.tokens)) for stream in streams),
            "Give more letters, or a shorter length.",
        )
    index = {word: i for i, word in enumerate(alphabet.words)}
    facts: dict[str, Any] = {"vocab_size": len(index), "mask_token": index[alphabet.mask]}
    if alphabet.complement:
        facts["complement"] = [index[alphabet.complement.get(word, word)] for word in alphabet.words]
    masking = Masking(
        mask_rate,
        span,
        *shares(corruption)[:2],
        index[alphabet.mask],
        np.array([index[letter] for letter in alphabet.asked]),
    )
    counts = [len(stream.tokens) for stream in streams]
    details = {
        "source": str(path),
        "letters": alphabet.name,
        "records": len(records.begins),
        "tokens": dict(zip(("train", "valid", "test"), counts, strict=True)),
        "window": length,
        "split": "90/5/5 % of the letters, contiguous",
    }
    return masked_task(
        path.stem,
        streams,
        length,
        masking,
        eval_rate,
        seed,
        facts=facts,
        tokenizer=tokenizer_of(alphabet),
        details=details,
    )


def encode(alphabet: Alphabet, letters: np.ndarray) -> np.ndarray:
    """Token ids of letters in upper case, as bytes."""
    table = np.full(256, alphabet.words.index("N" if alphabet is DNA else alphabet.unknown), dtype=np.uint8)
    for i, word in enumerate(alphabet.words):
        if len(word) == 1:
            table[ord(word)] = i
    if alphabet is DNA:
        table[ord("U")] = table[ord("T")]
    return table[letters]


def tokenizer_of(alphabet: Alphabet) -> Tokenizer:
    """The same as a tokenizer, a token a letter, which reads lower case as upper case."""
    words = {word: i for i, word in enumerate(alphabet.words)}
    tokenizer = Tokenizer(models.WordLevel(words, alphabet.unknown))
    small = [normalizers.Replace(word.lower(), word) for word in words if len(word) == 1 and word.isalpha()]
    tokenizer.normalizer = normalizers.Sequence(small)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def read_records(path: Path) -> Records:
    """The records of a FASTA or GenBank file; raises ValueError that names the line where it is neither."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        raw = file.read()
    lines = raw.splitlines()
    first = next((line for line in lines if line.strip()), b"")
    if first.startswith((b">", b";")):
        pieces, names = _fasta(lines)
    elif first.startswith(b"LOCUS"):
        pieces, names = _genbank(lines)
    else:
        raise fault(
            path,
            "FASTA (a line that starts with >) or GenBank (one that starts with LOCUS)",
            repr(first[:40].decode(errors="replace")),
            "Convert it, or read it as text with --kind language.",
        )
    letters = [np.frombuffer(b"".join(piece).upper(), dtype=np.uint8) for piece in pieces]
    kept = [i for i, piece in enumerate(letters) if len(piece)]
    if not kept:
        raise fault(path, "letters in its records", "none", "Name a file with sequences.")
    whole = np.concatenate([letters[i] for i in kept])
    capital = ((whole >= ord("A")) & (whole <= ord("Z"))) | np.isin(whole, np.frombuffer(b"-*.", np.uint8))
    if not capital.all():
        bad = bytes(whole[~capital][:1])
        number = next((i for i, line in enumerate(lines, 1) if bad in line.upper()), 0)
        raise fault(
            path, "letters in sequences", repr(bad.decode(errors="replace")), f"See line {number} or below."
        )
    ends = np.cumsum([len(letters[i]) for i in kept])
    return Records(whole, np.concatenate([[0], ends[:-1]]).astype(np.int64), [names[i] for i in kept])


def _fasta(lines: list[bytes]) -> tuple[list[list[bytes]], list[str]]:
    """The letters of each record, line by line, and its name."""
    pieces: list[list[bytes]] = []
    names: list[str] = []
    for line in lines:
        if line.startswith(b">"):
            names.append((line[1:].split() or [b""])[0].decode(errors="replace"))
            pieces.append([])
        elif pieces and not line.startswith(b";"):
            pieces[-1].append(b"".join(line.split()))
    return pieces, names


def _genbank(lines: list[bytes]) -> tuple[list[list[bytes]], list[str]]:
    """The same of GenBank: what stands between ORIGIN and //, without the numbers."""
    pieces: list[list[bytes]] = []
    names: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(b"LOCUS"):
            names.append((line.split()[1:2] or [b""])[0].decode(errors="replace"))
            pieces.append([])
        elif line.startswith(b"ORIGIN"):
            inside = True
        elif line.startswith(b"//"):
            inside = False
        elif inside and pieces:
            words = line.split()
            pieces[-1].append(b"".join(words[1:] if words[:1] and words[0].isdigit() else words))
    return pieces, names
