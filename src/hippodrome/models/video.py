"""The video model: frames in, the next frame out, and frames imagined on from its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.conv_s5 import ConvS5
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.ops.ssim import ssim
from hippodrome.shapes import Mean, VideoBatch

Frames = Float[Tensor, "b t i j c"]


class VideoModel(Model):
    """Frames, an encoder of patches, a backbone over flattened latent frames, a decoder.

    ``forward`` gives after each frame the next one, (b, t, rows, columns, colours), values from 0 to 1. A
    patch of ``patch`` x ``patch`` pixels becomes one point of a latent frame; the backbone's token is that
    frame flattened, rows, columns, channels, so its width is a multiple of the number of patches. The loss is
    the cross-entropy of each value of the next frame, read as the chance that the pixel is lit, as in Shi et
    al. 2015 (arXiv 1506.04214); its best prediction is the mean.

    ``metrics``: "mse" and "ssim" (structural similarity) of each next frame, the frames so far being the true
    ones; and, where rows are longer than ``context``, "open_mse" and "open_ssim": the model is shown the
    first ``context`` frames and goes on from what it predicts itself, to the end of the row.

    Args:
        backbone: causal, of width rows / patch * columns / patch * channels of a point.
        size: rows and columns of a frame in pixels.
        colours: values a pixel.
        patch: pixels along each side of a patch.
        context: frames that are shown before the open loop begins.

    Raises:
        ValueError: patches that do not tile the frame, a width that does not divide, or a backbone that is
            not causal.
    """

    objective: ClassVar[Objective] = Objective("mse", "lower")

    def __init__(
        self, backbone: nn.Module, size: list[int], colours: int = 1, patch: int = 4, context: int = 10
    ) -> None:
        super().__init__()
        if len(size) != 2 or patch < 1 or min(size) < patch or size[0] % patch or size[1] % patch:
            raise ValueError(
                f"patches of {patch} x {patch} pixels tile a frame of [rows, columns]; got size={list(size)}"
                ". Take a patch that divides both."
            )
        if min(colours, context) < 1:
            raise ValueError(
                f"a frame has one colour at least, and the open loop begins behind one frame at least; got "
                f"colours={colours}, context={context}."
            )
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "the next frame follows from those before it; got a backbone that is not causal. Choose "
                "another."
            )
        self.size, self.colours, self.patch, self.context = list(size), colours, patch, context
        self.grid = [side // patch for side in size]
        points = self.grid[0] * self.grid[1]
        self.backbone = backbone
        width: int = self.backbone.d_model
        if width % points:
            raise ValueError(
                f"a latent frame has {self.grid[0]} x {self.grid[1]} points, so the width of the backbone is "
                f"a multiple of {points}; got {width}. Take {max(1, round(width / points)) * points}."
            )
        channels = width // points
        self.encoder = nn.Sequential(
            nn.Conv2d(colours, channels, patch, stride=patch),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, patch * patch * colours, 1),
            nn.PixelShuffle(patch),
        )

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The backbone's state before the first frame."""
        return self.backbone.init_state(batch, max_length)

    def forward(
        self,
        inputs: Frames,
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Frames, tuple]:
        """After each frame the next one, values from 0 to 1, and the state after the last."""
        logits, state = self._logits(inputs, state, resets, dt)
        return torch.sigmoid(logits), state

    def last(
        self,
        inputs: Frames,
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b i j c"], tuple]:
        """The frame that follows the last, alone, and the state."""
        features, state = self.backbone(self._encode(inputs), state, resets=resets, dt=dt)
        return torch.sigmoid(self._decode(features[:, -1:]))[:, 0], state

    @torch.no_grad()
    def imagine(
        self, inputs: Frames, frames: int, state: tuple | None = None
    ) -> tuple[Float[Tensor, "b more i j c"], tuple]:
        """So many ``frames`` behind those shown, each read from the model's own; and the state.

        The state is that before the last imagined frame: handed back together with that frame as the next
        input, the imagination goes on.
        """
        now, state = self.last(inputs, state)
        found = [now]
        for _ in range(frames - 1):
            now, state = self.step(now, state)
            found.append(now)
        return torch.stack(found, 1), state

    def loss(self, batch: VideoBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy of the values of each frame but the first, in nats."""
        logits, _ = self._logits(batch.frames[:, :-1], None, None, None)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return F.binary_cross_entropy_with_logits(logits.to(wide), batch.frames[:, 1:].to(wide))

    def metrics(self, batch: VideoBatch) -> Mapping[str, Mean]:
        """Errors of the next frame, and of the open loop where rows are longer than the context."""
        frames = batch.frames
        with torch.no_grad():
            found = scores(self(frames[:, :-1])[0], frames[:, 1:])
            ahead = frames.shape[1] - self.context
            if ahead < 1:
                return found
            dreamt, _ = self.imagine(frames[:, : self.context], ahead)
            return found | {f"open_{k}": v for k, v in scores(dreamt, frames[:, self.context :]).items()}

    def tokens(self, batch: Any) -> int:
        """Frames of all rows."""
        return batch.frames.shape[0] * batch.frames.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _encode(self, frames: Tensor) -> Tensor:
        """Frames as flattened latent frames, (b, t, d)."""
        maps = self.encoder(frames.flatten(0, 1).permute(0, 3, 1, 2))
        return maps.permute(0, 2, 3, 1).reshape(*frames.shape[:2], -1)

    def _decode(self, features: Tensor) -> Tensor:
        """Logits of frames from flattened latent frames."""
        maps = features.flatten(0, 1).unflatten(-1, (*self.grid, -1)).permute(0, 3, 1, 2)
        return self.decoder(maps).permute(0, 2, 3, 1).unflatten(0, features.shape[:2])

    def _logits(
        self, frames: Tensor, state: tuple | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, tuple]:
        features, state = self.backbone(self._encode(frames), state, resets=resets, dt=dt)
        return self._decode(features), state

    @classmethod
    def example(cls) -> "VideoModel":
        """A small instance: frames of 8 x 8 pixels, 2 x 2 patches of four channels."""
        mixers = [ConvS5(16, [2, 2], d_state=4) for _ in range(2)]
        return cls(Stack([Block(mixer) for mixer in mixers]), [8, 8], context=3)

    @classmethod
    def example_batch(cls) -> VideoBatch:
        """Three rows of six frames."""
        numbers = torch.Generator().manual_seed(0)
        return VideoBatch(torch.rand(3, 6, 8, 8, 1, generator=numbers))


def scores(said: Frames, wanted: Frames) -> dict[str, Mean]:
    """Squared error and structural similarity of predicted frames, one count a frame."""
    count = wanted.shape[0] * wanted.shape[1]
    wide = torch.promote_types(said.dtype, torch.float32)
    said, wanted = said.to(wide), wanted.to(wide)
    return {
        "mse": Mean(exact_sum((said - wanted).square().mean((-3, -2, -1))), count),
        "ssim": Mean(exact_sum(ssim(said, wanted)), count),
    }
