"""Pathfinder: labels, markers and contours of generated scenes, and the public files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from hippodrome.data import open_source
from hippodrome.data.pathfinder import Rules, Scene, canvas, label, picture, rules_for, scene


def joined(drawn: Scene, rules: Rules) -> bool:
    """Whether the markers lie on one piece of the target contours, drawn without gaps and nothing else."""
    segments = []
    for owner in (0, 1):
        dashes = drawn.dashes[drawn.owner == owner]
        gaps = np.stack([dashes[:-1, 1], dashes[1:, 0]], 1)
        segments += [*dashes, *gaps]
    pieces, count = ndimage.label(canvas(np.array(segments), np.empty((0, 2)), rules) > 0.3, np.ones((3, 3)))
    assert count == 2
    reached = [np.unique(pieces[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]) for y, x in drawn.markers]
    (first,), (last,) = (set(found.tolist()) - {0} for found in reached)
    return first == last


@pytest.mark.parametrize(("size", "contour"), [(32, 14), (128, 14), (64, 6)])
def test_the_label_is_whether_one_contour_joins_the_markers(size: int, contour: int) -> None:
    rules = rules_for(size, contour)
    for index in range(60):
        assert joined(scene(3, index, rules), rules) == bool(label(3, index))


def test_scenes_keep_their_rules() -> None:
    for size in (32, 128):
        rules = rules_for(size, 14)
        for index in range(20):
            drawn = scene(0, index, rules)
            dashes = drawn.dashes
            assert dashes.min() >= rules.padding
            assert dashes.max() <= rules.canvas - rules.padding
            np.testing.assert_allclose(np.linalg.norm(dashes[:, 1] - dashes[:, 0], axis=1), rules.length)
            for owner in range(2):
                mine = dashes[drawn.owner == owner]
                assert len(mine) == 14
                # From a pivot to its dash's end: margin and length; the pivots are length + 2 margins apart.
                arms = (mine[:, 1] - mine[:, 0]) / rules.length
                pivots = mine[:, 0] - rules.margin * arms
                ahead = pivots[:-1] + (rules.length + 2 * rules.margin) * arms[:-1]
                np.testing.assert_allclose(ahead, pivots[1:], atol=1e-9)
                turns = np.arccos(np.clip((arms[:-1] * arms[1:]).sum(1), -1, 1))
                assert turns.max() < np.pi / 2 / rules.continuity
            starts = [dashes[drawn.owner == owner][0, 0] for owner in range(2)]
            assert np.linalg.norm(starts[0] - starts[1]) == pytest.approx(rules.seeds)
            points = dashes[:, :1] + (dashes[:, 1:] - dashes[:, :1]) * np.linspace(0, 1, 21)[:, None]
            away = cdist(points.reshape(-1, 2), points.reshape(-1, 2))
            other = np.repeat(drawn.owner, 21)
            assert away[other[:, None] != other].min() >= rules.apart
            assert set(np.bincount(drawn.owner)[2:]) <= {0, 4}
            assert len(dashes) <= 28 + 28


def test_pictures_show_two_markers_and_what_is_drawn() -> None:
    for size in (32, 128):
        rules = rules_for(size, 14)
        for index in range(20):
            drawn = scene(1, index, rules)
            shown = canvas(drawn.dashes, drawn.markers, rules) > 0.5
            blobs, count = ndimage.label(ndimage.binary_opening(shown, np.ones((5, 5))))
            assert count == 2
            centres = np.array(ndimage.center_of_mass(blobs > 0, blobs, [1, 2])) + 0.5
            assert cdist(centres, drawn.markers).min(0).max() < 1
            small = picture(drawn, size, rules)
            places = np.floor(drawn.markers * size / rules.canvas).astype(int)
            assert small[tuple(places.T)].min() > 200
    whole = canvas(drawn.dashes, np.empty((0, 2)), rules)
    assert whole.sum() == pytest.approx(len(drawn.dashes) * rules.length * rules.thickness, rel=0.02)
    disc = canvas(np.empty((0, 2, 2)), np.array([[150.0, 140.0]]), rules)
    assert disc.sum() == pytest.approx(np.pi * rules.radius**2, rel=0.01)


def test_the_task_is_balanced_and_each_picture_is_a_function_of_its_number() -> None:
    task = open_source("pathfinder", count=2000, size=32)
    assert task.details["sequences"] == {"train": 1600, "valid": 200, "test": 200}
    assert task.facts["classes"] == ["apart", "joined"]
    labels = [label(0, i) for i in range(20_000)]
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / 20_000**0.5
    item = task.train[7]
    assert item.inputs.shape == (1024, 1)
    rules = rules_for(32, 14)
    expected = picture(scene(0, 7, rules), 32, rules)
    assert np.array_equal(item.inputs.numpy().reshape(32, 32), expected)
    again = open_source("pathfinder", count=3000)
    assert torch.equal(again.train[7].inputs, item.inputs)
    assert torch.equal(again.train[7].inputs, item.inputs)  # the kept one
    other = open_source("pathfinder", count=2000, seed=1)
    assert not torch.equal(other.train[7].inputs, item.inputs)
    pixels = torch.stack([task.train[i].inputs for i in range(300)]).double()
    assert task.facts["location"][0] == pytest.approx(float(pixels.mean()), rel=0.05)
    assert task.facts["scale"][0] == pytest.approx(float(pixels.std()), rel=0.05)
    assert open_source("pathfinder", count=100, size=128).train[0].inputs.shape == (16384, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 512}, "a side has 16 to 256 pixels; got size 512"),
        ({"contour": 10}, "6, 9 or 14 dashes; got 10"),
        ({"count": 10}, "100 pictures at least are split; got count 10"),
    ],
)
def test_what_there_is_not(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_source("pathfinder", **options)


def public(folder: Path, arrays: bool = False) -> Path:
    """A folder like the arena's: two files of metadata, eleven pictures each, one of them empty."""
    image = pytest.importorskip("PIL.Image")
    rules = rules_for(32, 14)
    for part in range(2):
        (folder / "imgs" / str(part)).mkdir(parents=True)
        (folder / "metadata").mkdir(exist_ok=True)
        rows = []
        for i in range(11):
            index = 11 * part + i
            file = folder / "imgs" / str(part) / f"sample_{i}.png"
            image.fromarray(picture(scene(0, index, rules), 32, rules)).save(file)
            rows.append([f"imgs/{part}", file.name, str(i), str(index % 2), "1.8", "14"])
        if arrays:
            np.save(folder / "metadata" / f"{part}.npy", np.array(rows))
        else:
            (folder / "metadata" / f"{part}.npy").write_text("".join(" ".join(row) + "\n" for row in rows))
    (folder / "imgs" / "1" / "sample_10.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize("arrays", [False, True])
def test_public_files(tmp_path: Path, arrays: bool) -> None:
    folder = public(tmp_path / "pathfinder32" / "curv_contour_length_14", arrays)
    task = open_source(folder)
    assert task.facts["classes"] == ["apart", "joined"]
    assert task.details["sequences"] == {"train": 17, "valid": 2, "test": 2}
    assert task.details["left out"] == "1 empty picture"
    rules = rules_for(32, 14)
    seen = {task.test[i].inputs.numpy().tobytes(): task.test[i].label for i in range(2)}
    for index in range(22):
        key = picture(scene(0, index, rules), 32, rules).reshape(-1, 1).astype(np.float32).tobytes()
        assert seen.pop(key, index % 2) == index % 2
    assert not seen
    with pytest.raises(ValueError, match=r"got curv_contour_length_14, which have one\. Name one of them"):
        open_source(tmp_path / "pathfinder32")


def test_public_files_with_faults(tmp_path: Path) -> None:
    folder = public(tmp_path / "p")
    table = folder / "metadata" / "0.npy"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], "imgs/0 sample_2.png 2 7", *lines[3:]]))
    with pytest.raises(ValueError, match=r"0\.npy, row 3 .*: expected a label 0 or 1 in column 4; got '7'"):
        open_source(folder)
    table.write_text("\n".join([*lines, "imgs/0 sample_99.png 99 1"]))
    with pytest.raises(ValueError, match=r"row 12 .*: expected a picture .*sample_99\.png; got none"):
        open_source(folder)
    table.write_bytes(b"\x93NUMPY broken")
    with pytest.raises(ValueError, match="expected an array of text; got one that cannot be read"):
        open_source(folder)
