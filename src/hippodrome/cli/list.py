"""`hippodrome list`: what there is, mixers, recipes, built-in sources and layouts of checkpoints."""

from typing import Annotated

import typer

from hippodrome.cli._options import Json
from hippodrome.cli._output import as_json, table

PANEL = "Look things up"
WHAT = ("mixers", "recipes", "sources", "layouts")


def command(
    what: Annotated[
        str | None, typer.Argument(help="mixers, recipes, sources or layouts; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """List the mixers and recipes with their papers, the built-in sources and the layouts of checkpoints."""
    from hippodrome.config.find import suggest

    if what is not None and what not in WHAT:
        raise ValueError(f"there is no list of {what!r}{suggest(what, WHAT)}")
    chosen = [w for w in WHAT if what in (None, w)]
    makers = {"mixers": _mixers, "recipes": _recipes, "sources": _sources, "layouts": _layouts}
    found = {w: makers[w]() for w in chosen}
    if json:
        as_json(found)
        return
    for i, (name, rows) in enumerate(found.items()):
        if i:
            typer.echo()
        columns = list(rows[0]) if rows else ["name"]
        table(name, columns, [list(row.values()) for row in rows])


def _mixers() -> list[dict[str, str]]:
    from hippodrome.cli import _sources as sources

    return [{"kind": m.kind, "what": m.summary, "source": m.source} for m in sources.mixers()]


def _recipes() -> list[dict[str, str]]:
    from hippodrome.config import published as recipes

    found = [recipes.find(name) for name in recipes.names()]
    return [{"name": r.name, "title": r.title, "family": r.family} for r in found]


def _layouts() -> list[dict[str, str]]:
    from hippodrome.checkpoints.families import families

    return [{"name": name, "family": key} for key, family in families().items() for name in family.LAYOUTS]


def _sources() -> list[dict[str, str]]:
    from hippodrome.data import BUILT_IN

    return [{"name": name} for name in BUILT_IN]
