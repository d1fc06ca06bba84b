"""What can be told about mixers and their papers by reading files, without importing PyTorch."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hippodrome.backbones import MIXERS
from hippodrome.config.find import choices, suggest


class MixerFacts(NamedTuple):
    """One mixer as its file tells it."""

    kind: str
    name: str
    summary: str
    source: str


def mixers() -> list[MixerFacts]:
    """All mixers, sorted by kind."""
    return [mixer(kind) for kind in choices("mixers")]


@cache
def mixer(kind: str) -> MixerFacts:
    """The facts of one kind. Raises ValueError for a kind there is not."""
    known = choices("mixers")
    if kind not in known:
        raise ValueError(f"there is no mixer {kind!r}{suggest(kind, known)}")
    spec = find_spec("hippodrome.backbones" if kind in MIXERS else "hippodrome.mixers")
    folders = (spec.submodule_search_locations or []) if spec else []
    path = next(p for f in folders if (p := Path(f) / f"{kind}.py").is_file())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    chosen = next((n for n in public if any(getattr(m, "name", "") == "example" for m in n.body)), None)
    about = _sentence(ast.get_docstring(tree) or "")
    if chosen is None:
        return MixerFacts(kind, "", about, "")
    return MixerFacts(kind, chosen.name, about, _citation(ast.get_docstring(chosen) or ""))


def _sentence(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())


def _citation(text: str) -> str:
    """The sentence of a docstring that begins with authors and a year."""
    for paragraph in text.split("\n\n"):
        # A sentence ends at a stop between a small letter or number and a capital; "et al. 2017" goes on.
        for part in re.split(r"(?<=[a-z\d)\"'])[.;]\s+(?=[A-Z\"`])", " ".join(paragraph.split())):
            if re.match(r"[A-Z].{0,160}?\b(19|20)\d\d\b", part):
                return re.sub(r"(arXiv \d{4}\.\d{4,5}).*", r"\1", part).rstrip(".")
    return ""
