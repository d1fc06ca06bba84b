"""The .ts files: real ones read right, cuts that keep the classes, faults that name file, row and channel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._labelled import stratified
from hippodrome.data.ts import read_ts

HEADER = "#about\n@problemName Toy\n@univariate false\n@classLabel true up down\n@data\n"
ROWS = "1,2,3:4,5,6:up\n1,?:3,NaN:down\n" * 10


def write(tmp_path: Path, train: str = HEADER + ROWS, test: str | None = HEADER + ROWS) -> Path:
    path = tmp_path / "Toy_TRAIN.ts"
    path.write_text(train)
    if test is not None:
        (tmp_path / "Toy_TEST.ts").write_text(test)
    return path


@pytest.mark.data
def test_japanese_vowels(data_folder: Path) -> None:
    path = data_folder / "ucr" / "JapaneseVowels_TRAIN.ts"
    train, test = read_ts(path), read_ts(path.with_name("JapaneseVowels_TEST.ts"))
    assert (len(train.cases), len(test.cases)) == (270, 370)
    assert {case.shape[1] for case in train.cases + test.cases} == {12}
    lengths = [len(case) for case in train.cases + test.cases]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert train.classes == test.classes == [str(i) for i in range(1, 10)]
    assert np.bincount([int(label) for label in train.labels])[1:].tolist() == [30] * 9
    assert train.cases[0][:2, 0].tolist() == [1.860936, 1.891651]
    task = open_source(path)
    assert task.details["sequences"] == {"train": 216, "valid": 54, "test": 370}
    assert set(task.details["per class in train"].values()) == {24}
    assert (task.facts["channels"], len(task.facts["classes"])) == (12, 9)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "cases", "shape"),
    [
        ("BasicMotions", (40, 40), (100, 6)),
        ("GunPoint", (50, 150), (150, 1)),
        ("ItalyPowerDemand", (67, 1029), (24, 1)),
    ],
)
def test_other_archives(data_folder: Path, name: str, cases: tuple[int, int], shape: tuple[int, int]) -> None:
    train = read_ts(data_folder / "ucr" / f"{name}_TRAIN.ts")
    test = read_ts(data_folder / "ucr" / f"{name}_TEST.ts")
    assert (len(train.cases), len(test.cases)) == cases
    assert {case.shape for case in train.cases} == {shape}


def test_padding_lengths_and_missing_values(tmp_path: Path) -> None:
    task = open_source(write(tmp_path))
    batch = task.collate([task.test[0], task.test[1]])
    assert batch.inputs.shape == (2, 3, 2)
    assert batch.lengths.tolist() == [3, 2]
    assert batch.labels.tolist() == [0, 1]
    assert batch.inputs[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert bool(batch.inputs[1, 1].isnan().all())
    assert batch.inputs[1, 2].tolist() == [0, 0]
    assert task.details["missing in train"] == 16
    assert task.naive()["majority class"]["accuracy"] == 0.5


def test_either_file_and_a_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path)
    both = [open_source(path), open_source(tmp_path / "Toy_TEST.ts")]
    assert both[0].facts == both[1].facts
    assert len(both[0].test) == 20  # type: ignore[arg-type]
    alone = tmp_path / "alone.ts"
    alone.write_text(HEADER + ROWS)
    assert open_source(alone).details["sequences"] == {"train": 12, "valid": 4, "test": 4}


def test_stratified_cut_is_even_disjoint_and_repeats() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 2 + [3])
    keep, cut = stratified(labels, np.arange(63), 0.2, 0)
    assert sorted([*keep, *cut]) == list(range(63))
    assert np.bincount(labels[cut], minlength=4).tolist() == [10, 2, 1, 0]
    assert np.array_equal(stratified(labels, np.arange(63), 0.2, 0)[1], cut)
    assert not np.array_equal(stratified(labels, np.arange(63), 0.2, 1)[1], cut)


def test_items_repeat(tmp_path: Path) -> None:
    task = open_source(write(tmp_path))
    torch.testing.assert_close(task.train[3].inputs, task.train[3].inputs, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(IndexError):
        task.train[len(task.train)]  # type: ignore[arg-type]


FAULTS = {
    "empty": ("", "ends with @data; got an empty file"),
    "no data": ("@problemName x\n1,2:a\n", "a header of @ lines that ends with @data; got none"),
    "no cases": (HEADER, "expected cases behind @data; got none"),
    "no classes": ("@classLabel false\n@data\n1,2:a\n", "@classLabel true and the classes; got none"),
    "stamps": ("@timeStamps true\n@classLabel true a b\n@data\n(0,1):a\n", "@timestamps false; got true"),
    "regression": ("@targetLabel true\n@data\n1:0.5\n", "@targetlabel false; got true"),
    "label": (HEADER + "1:2:up\n1:2:left\n", r"row 2 .*: expected one of the classes up, down; got 'left'"),
    "channels": (HEADER + "1:2:up\n1:2:3:up\n", "row 2 .*: expected 2 channels as in row 1; got 3"),
    "ragged": (
        HEADER + "1,2:3,4:up\n1,2:3:down\n",
        "row 2 .*column 'channel 2': expected 2 steps as in channel 1; got 1",
    ),
    "value": (
        HEADER + "1,2:3,x4:up\n",
        "row 1 .*column 'channel 2, step 2': expected a number, or .* got 'x4'",
    ),
    "infinite": (HEADER + "1,inf:3,4:up\n", "row 1 .*column 'channel 1, step 2': expected a finite number"),
    "no label": (HEADER + "1\n", "row 1 .*: expected channels and a class, separated by ':'; got '1'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=words) as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_two_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"companion Toy_TEST\.ts is expected beside it"):
        open_source(write(tmp_path, test=None))
    with pytest.raises(ValueError, match=r"Toy_TEST\.ts: expected 2 channels as in the train file; got 1"):
        open_source(write(tmp_path, test=HEADER + "1,2:up\n"))
    with pytest.raises(
        ValueError, match=r"Toy_TEST\.ts, row 1 .*one of the train classes up, down; got 'left'"
    ):
        open_source(write(tmp_path, test=HEADER.replace("down", "left") + "1:2:left\n"))


def test_too_few_to_cut_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the validation part is empty: 22 sequences of 2 classes"):
        open_source(write(tmp_path, HEADER + "1:2:up\n1:2:down\n"))
    with pytest.raises(ValueError, match="needs two classes at least; there is a"):
        open_source(
            write(tmp_path, "@classLabel true a\n@data\n1:a\n2:a\n", "@classLabel true a\n@data\n1:a\n")
        )
