"""Folders of contenders whose names are patterns: every name one of its own, none too long for a disk."""

from hippodrome.race.plan import Entry


def folder(name: str) -> str:
    return Entry(name=name, baseline=False, width=8, depth=1, parameters=10, rates=[1e-3], spec={}).folder


def test_names_become_folders_of_their_own() -> None:
    assert folder("mamba2x3+attention") == "mamba2x3+attention"
    assert folder("hiss:s4d: mamba") == "hiss-s4d--mamba"
    assert folder("M-M*") == "M-Ma" != folder("M-M-")


def test_a_whole_hybrid_by_name_fits_on_a_disk() -> None:
    names = ["mamba", "mlp", "mamba", "moe"] * 20
    first, second = folder("+".join(names)), folder("+".join([*names[:-1], "mlp"]))
    assert first != second
    assert max(len(first.encode()), len(second.encode())) < 200
