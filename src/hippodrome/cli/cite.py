"""`hippodrome cite`: the paper behind a recipe or a mixer, as BibTeX."""

import re
from typing import Annotated

import typer

from hippodrome.cli._options import Json
from hippodrome.cli._output import as_json

PANEL = "Look things up"

_REFERENCE = re.compile(
    r'(?P<authors>.+?) (?P<year>(19|20)\d\d)(, "(?P<title>[^"]+?),?")?'
    r",? ?\(?(arXiv (?P<arxiv>\d{4}\.\d{4,5}))?"
)


def command(
    names: Annotated[list[str], typer.Argument(help="Recipes or mixers.")],
    json: Json = False,
) -> None:
    """Print the BibTeX entries of recipes and mixers."""
    found = {name: entry(name) for name in names}
    if json:
        as_json(found)
    else:
        typer.echo("\n\n".join(found.values()))


def entry(name: str) -> str:
    """The BibTeX of a recipe, or one made from the citation in a mixer's docstring."""
    from hippodrome.cli._sources import mixer
    from hippodrome.config import choices, suggest
    from hippodrome.config import published as recipes

    known = recipes.names()
    if name in known:
        return recipes.find(name).citation.strip()
    if name not in choices("mixers"):
        everything = [*known, *choices("mixers")]
        raise ValueError(f"there is no recipe and no mixer {name!r}{suggest(name, everything)}")
    return bibtex(name, mixer(name).source)


def bibtex(key: str, source: str) -> str:
    """A citation in words, "Authors Year, "Title", arXiv N, ...", as a BibTeX entry."""
    match = _REFERENCE.match(source)
    if not match:
        raise ValueError(f"the docstring of {key!r} names no authors with a year; nothing to cite")
    authors = re.sub(r",? et al\.?$", ", others", match["authors"])
    fields = {
        "author": " and ".join(part.strip() for part in re.split(r",| and ", authors) if part.strip()),
        "title": match["title"] and f"{{{match['title']}}}",
        "year": match["year"],
        "eprint": match["arxiv"],
        "archiveprefix": match["arxiv"] and "arXiv",
        "note": source if not (match["title"] and match["arxiv"]) else None,
    }
    lines = [f"  {field:<13} = {{{value}}}," for field, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])
