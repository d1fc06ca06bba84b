"""The video model: what it imagines is what it would say of its own frames, and what it must refuse."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.conv_s5 import ConvS5
from hippodrome.models.video import VideoModel
from hippodrome.ops.ssim import ssim
from hippodrome.shapes import VideoBatch


def model(mixer: object = None) -> VideoModel:
    if mixer is None:
        return VideoModel.example().double().eval()
    return VideoModel(Stack([Block(mixer)]), [8, 8], context=3).double().eval()


def frames(rows: int = 2, length: int = 6) -> torch.Tensor:
    return torch.rand(rows, length, 8, 8, 1, dtype=torch.float64)


@pytest.mark.parametrize("mixer", [None, Attention(16)], ids=["conv_s5", "attention"])
def test_what_is_imagined_is_what_it_says_when_fed_its_own_frames(mixer: object) -> None:
    video, shown = model(mixer), frames(length=3)
    dreamt, _ = video.imagine(shown, 4)
    assert dreamt.shape == (2, 4, 8, 8, 1)
    said, _ = video(torch.cat([shown, dreamt[:, :-1]], 1))
    torch.testing.assert_close(said[:, 2:], dreamt, rtol=1e-9, atol=1e-12)


def test_an_imagination_goes_on_from_its_state() -> None:
    video, shown = model(), frames(length=3)
    whole, _ = video.imagine(shown, 5)
    first, state = video.imagine(shown, 2)
    rest, _ = video.imagine(first[:, -1:], 3, state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=1e-9, atol=1e-12)


def test_metrics_by_hand() -> None:
    video, batch = model(), VideoBatch(frames(3, 6))
    said = video(batch.frames[:, :-1])[0].detach()
    found = video.metrics(batch)
    error = F.mse_loss(said, batch.frames[:, 1:])
    assert found["mse"].value == pytest.approx(float(error))
    assert found["mse"].count == 15
    dreamt, _ = video.imagine(batch.frames[:, :3], 3)
    assert found["open_mse"].value == pytest.approx(float(F.mse_loss(dreamt, batch.frames[:, 3:])))
    assert found["open_ssim"].value == pytest.approx(float(ssim(dreamt, batch.frames[:, 3:]).mean()))
    assert found["open_ssim"].count == 9
    # Rows no longer than the context have no open loop.
    assert set(video.metrics(VideoBatch(frames(3, 3)))) == {"mse", "ssim"}
    entropy = F.binary_cross_entropy(said, batch.frames[:, 1:])
    assert video.loss(batch).item() == pytest.approx(float(entropy))


def test_a_patch_stays_where_it_is() -> None:
    """Encoder and decoder alone: a pixel reaches the patches beside its own and no further."""
    video = VideoModel(Stack([Block(ConvS5(4 * 64, [8, 8], d_state=4))]), [32, 32]).double()
    dark = torch.zeros(1, 1, 32, 32, 1, dtype=torch.float64)
    lit = dark.clone()
    lit[0, 0, 17, 6] = 1.0
    change = (video._decode(video._encode(lit)) - video._decode(video._encode(dark)))[0, 0, ..., 0]
    rows, columns = change.abs().amax(1).nonzero().flatten(), change.abs().amax(0).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (8, 27)
    assert (int(columns.min()), int(columns.max())) == (0, 15)


def test_mistakes_are_told_in_a_sentence() -> None:
    stack = Stack([Block(ConvS5(16, [2, 2], d_state=4))])
    with pytest.raises(ValueError, match="divides both"):
        VideoModel(stack, [9, 8])
    with pytest.raises(ValueError, match="a multiple of 12"):
        VideoModel(stack, [12, 16])
    with pytest.raises(ValueError, match="context=0"):
        VideoModel(stack, [8, 8], context=0)
