"""Pictures of frames: the strip's layout, and a PNG that another reader reads back to the byte."""

import io

import matplotlib.image
import numpy as np
import pytest
import torch

from hippodrome.analyze.frames import GAP, Strip, continued, encode, png
from hippodrome.models.video import VideoModel


@pytest.mark.parametrize("colours", [1, 3])
def test_a_png_is_read_back(colours: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, colours), dtype=np.uint8)
    back = matplotlib.image.imread(io.BytesIO(encode(pixels)), format="png")
    back = back[..., None] if back.ndim == 2 else back[..., :colours]
    assert np.array_equal((back * 255).round().astype(np.uint8), pixels)


def test_a_strip_holds_the_video_and_what_is_imagined() -> None:
    video = VideoModel.example().eval()
    frames = torch.rand(6, 8, 8, 1)
    strip = continued({"a": video, "b": video}, frames)
    assert strip.context == video.context == 3
    assert torch.equal(strip.frames[0], frames)
    assert torch.equal(strip.frames[1, :3], frames[:3])
    assert torch.equal(strip.frames[1], strip.frames[2])
    dreamt, _ = video.imagine(frames[None, :3], 3)
    assert torch.equal(strip.frames[1, 3:], dreamt[0])
    with pytest.raises(ValueError, match="context of 6"):
        continued({"a": video}, frames, 6)
    with pytest.raises(ValueError, match="got none"):
        continued({}, frames)


def test_the_picture_has_a_row_for_each_video_and_a_line_at_the_open_loop() -> None:
    frames = torch.zeros(2, 4, 3, 5, 1)
    frames[1, 2] = 1.0
    picture = matplotlib.image.imread(io.BytesIO(png(Strip(frames, 2), scale=1)), format="png")
    assert picture.shape == (2 * (3 + GAP) + GAP, 4 * (5 + GAP) + GAP)
    left = 2 * (5 + GAP)
    assert (picture[:, left : left + GAP] == 1).all()
    assert (picture[3 + 2 * GAP : -GAP, left + GAP : left + GAP + 5] == 1).all()
    assert picture[GAP : GAP + 3, GAP : GAP + 5].max() == 0
    with pytest.raises(ValueError, match="frames of 2"):
        png(Strip(torch.zeros(1, 1, 2, 2, 2), 1))
