"""Images as sequences: rows, pixels, one drawn order, train statistics; IDX files, pictures, archives."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._images import permutation
from hippodrome.data._open import _check_number
from hippodrome.data.idx import read_idx


def images(n: int = 20, *, colours: int | None = None) -> np.ndarray:
    shape = (n, 4, 3) if colours is None else (n, 4, 3, colours)
    return np.random.default_rng(n).integers(0, 256, shape, dtype=np.uint8)


def archive(path: Path, colours: int | None = None) -> Path:
    labels = np.arange(20) % 2
    np.savez(
        path / "digits.npz",
        x_train=images(20, colours=colours),
        y_train=labels,
        x_test=images(8, colours=colours),
        y_test=labels[:8],
    )
    return path / "digits.npz"


def idx(path: Path, array: np.ndarray, *, zipped: bool = False) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if zipped else data)


def mnist(folder: Path) -> Path:
    for part, n, end in (("train", 20, ""), ("t10k", 8, ".gz")):
        idx(folder / f"{part}-images-idx3-ubyte{end}", images(n), zipped=bool(end))
        idx(folder / f"{part}-labels-idx1-ubyte{end}", np.arange(n) % 2, zipped=bool(end))
    return folder


def test_rows_pixels_and_one_drawn_order(tmp_path: Path) -> None:
    path, tested = archive(tmp_path), images(8).astype(np.float32)
    rows, pixels = open_source(path), open_source(path, order="pixels")
    drawn = open_source(path, order="pixels", permute=7)
    assert (rows.facts["channels"], pixels.facts["channels"]) == (3, 1)
    assert len(rows.test) == 8  # type: ignore[arg-type]
    assert torch.equal(rows.test[2].inputs, torch.from_numpy(tested[2]))
    assert torch.equal(pixels.test[2].inputs[:, 0], torch.from_numpy(tested[2].ravel()))
    order = permutation(12, 7)
    assert sorted(order) == list(range(12))
    assert list(order) != list(range(12))
    for part in (drawn.train, drawn.valid, drawn.test):
        whole = {drawn.train: pixels.train, drawn.valid: pixels.valid, drawn.test: pixels.test}[part]
        assert torch.equal(part[1].inputs, whole[1].inputs[order])
    assert drawn.details["order"] == "12 pixels of 1, permuted once (seed 7)"


def test_colours_stay_together_and_are_scaled_by_the_train_part_alone(tmp_path: Path) -> None:
    path = archive(tmp_path, colours=3)
    task = open_source(path, order="pixels", count=10, valid=0.2)
    assert task.details["sequences"] == {"train": 8, "valid": 2, "test": 8}
    train = torch.stack([task.train[i].inputs for i in range(8)]).double()
    assert task.facts["location"] == pytest.approx(train.mean((0, 1)).tolist(), rel=1e-12)
    assert task.facts["scale"] == pytest.approx(train.std((0, 1), correction=0).tolist(), rel=1e-12)
    by_rows = open_source(path, count=10)
    assert by_rows.facts["location"] == task.facts["location"] * 3
    assert torch.equal(by_rows.test[0].inputs.reshape(12, 3), task.test[0].inputs)


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    task = open_source(mnist(tmp_path / "mnist"), order="pixels")
    assert task.facts["classes"] == ["0", "1"]
    assert task.details["sequences"] == {"train": 16, "valid": 4, "test": 8}
    assert torch.equal(task.test[3].inputs[:, 0], torch.from_numpy(images(8)[3].ravel().astype(np.float32)))
    assert task.test[3].label == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG", "expected an IDX file: two zero bytes, a type, a number of axes; got"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 5, 1, 2]), r"expected 13 bytes for an array of \(5,\); got 10"),
        (b"\x1f\x8b\x08", "one that cannot be read"),
        (b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 20, "one that cannot be read"),
    ],
)
def test_idx_faults(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_idx_folder_faults(tmp_path: Path) -> None:
    folder = mnist(tmp_path)
    idx(folder / "train-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(ValueError, match="expected one label for each of 20 images"):
        open_source(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    idx(folder / "train-labels-idx1-ubyte", np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"expected t10k-labels-idx1-ubyte or .*\.gz in it; got neither"):
        open_source(folder)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    array = images(12, colours=3)
    for i in range(12):
        folder = tmp_path / ("test" if i < 4 else "train") / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(array[i]).save(folder / f"{i:02}.png")
    task = open_source(tmp_path, order="pixels", count=6, valid=0.34)
    assert task.details["sequences"] == {"train": 4, "valid": 2, "test": 4}
    assert task.facts["classes"] == ["cat", "dog"]
    assert task.facts["channels"] == 3
    assert torch.equal(task.test[0].inputs, torch.from_numpy(array[0].reshape(12, 3).astype(np.float32)))
    image.fromarray(array[0][:2]).save(tmp_path / "train" / "cat" / "99.png")
    with pytest.raises(ValueError, match=r"99\.png: expected 4 x 3, in colours as in 04\.png; got 2 x 3"):
        open_source(tmp_path)
    image.fromarray(np.full((4, 3), 40_000, np.uint16)).save(tmp_path / "train" / "cat" / "99.png")
    with pytest.raises(ValueError, match=r"99\.png: expected 8 bits a colour; got more"):
        open_source(tmp_path)
    (tmp_path / "train" / "cat" / "99.png").write_text("none")
    with pytest.raises(ValueError, match=r"99\.png: expected a picture; got a file that cannot be read"):
        open_source(tmp_path)


def test_image_options_and_archives_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images are read by 'rows' or 'pixels'; got 'columns'"):
        open_source(archive(tmp_path), order="columns")
    with pytest.raises(ValueError, match="the count of train sequences is 1 or more; got 0"):
        open_source(archive(tmp_path), count=0)
    other = tmp_path / "values.npz"
    np.savez(other, inputs=np.zeros((6, 5, 2)), labels=np.arange(6) % 2)
    with pytest.raises(ValueError, match=r"images for data\.order and data\.permute"):
        open_source(other, order="pixels")
    np.savez(other, inputs=np.zeros((6, 5, 2)), targets=np.zeros((6, 5, 1)))
    with pytest.raises(ValueError, match=r"images for data\.order and data\.permute"):
        open_source(other, permute=1)
    np.savez(other, x_train=images(), y_train=np.arange(20) % 2, x_test=images(4)[:, :2])
    with pytest.raises(ValueError, match="expected arrays"):
        open_source(other)
    np.savez(other, x_train=images(), y_train=np.arange(20) % 2, x_test=images(4)[:, :2], y_test=np.arange(4))
    with pytest.raises(ValueError, match="'x_test' like 'x_train'"):
        open_source(other)


@pytest.mark.data
def test_published_mnist_test_file(data_folder: Path) -> None:
    images = read_idx(data_folder / "mnist" / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(data_folder / "mnist" / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    # Counts of the digits in the published test set.
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_colours_are_made_grey(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    coloured = images(20, colours=3)
    task = open_source(archive(tmp_path, colours=3), order="pixels", grey=True)
    assert task.facts["channels"] == 1
    expected = (images(8, colours=3) @ np.array([0.299, 0.587, 0.114])).reshape(8, 12)
    shown = np.stack([task.test[i].inputs[:, 0].numpy() for i in range(8)])
    assert np.abs(shown - expected).max() <= 0.501
    for i, pixels in enumerate(coloured):
        place = tmp_path / "photos" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(place / f"{i:02}.png")
    one = open_source(tmp_path / "photos", order="pixels", grey=True)
    assert one.facts["channels"] == 1
    by_hand = {((p @ np.array([299, 587, 114]) + 500) // 1000).astype(np.float32).tobytes() for p in coloured}
    assert {one.test[i].inputs.numpy().tobytes() for i in range(4)} <= by_hand
    assert open_source(tmp_path / "photos", order="pixels").facts["channels"] == 3
    with pytest.raises(ValueError, match="'photos' takes true or false as 'grey'; got 'yes'"):
        _check_number("photos", "grey", "yes", bool)
