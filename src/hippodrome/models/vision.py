"""The picture classifier: patches of a picture as tokens of a grid, a stack or a pyramid, one class."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.layers.drop_path import DropPath
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.shapes import LabelledBatch, Mean


class VisionModel(Model):
    """Pixels, patches, backbone, pooling over the tokens, linear head.

    Pictures come as rows of pixels in C order, (b, rows * columns, c), as the readers of images hand them out
    with ``order="pixels"``. Their patches are tokens of a grid, and the backbone is a stack (Zhu et al. 2024,
    "Vision Mamba", arXiv 2401.09417, section 3) or a pyramid (Liu et al. 2024, "VMamba", arXiv 2401.10166,
    section 4). A stream is a sequence of whole pictures, of which the last is answered for: nothing is
    carried from one to the next.

    Args:
        backbone: of width ``d_model``; one with fewer and wider tokens at its end says so as ``d_out``.
        classes: names of the classes, in the order of the labels.
        size: rows and columns of a picture, in pixels.
        channels: values a pixel.
        patch: pixels of a patch's side; it divides both sides of the picture.
        stem: what makes tokens of pixels: "patch" (a linear map of each patch), "normed" (with a layer norm
            behind it), or "convs" (3 x 3 convolutions of stride 2, as many as make the patch, a layer norm
            behind each and GELU between).
        positions: whether each token's place is learned; None learns it where the backbone keeps all tokens.
        pooling: "mean" of the tokens, or the class "token" that stands in the middle of them.
        drop_path: rate at which the last residual branch is dropped in training; it grows linearly from 0 at
            the first.
        location: mean of each channel over the train data, taken off before anything else; None for zeros.
        scale: standard deviation of each channel over the train data; None for ones, a zero counts as one.

    Raises:
        ValueError: fewer than two classes, a patch that does not divide the picture or is no power of two
            where convolutions make it, a class token over a backbone that reads a grid, or lists that do not
            fit the channels.
    """

    objective: ClassVar[Objective] = Objective("accuracy", "higher")
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classes: list[str],
        size: list[int],
        channels: int = 3,
        patch: int = 4,
        stem: Literal["patch", "normed", "convs"] = "patch",
        positions: bool | None = None,
        pooling: Literal["mean", "token"] = "mean",
        drop_path: float = 0.0,
        location: list[float] | None = None,
        scale: list[float] | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"a classifier needs two classes at least; got {classes}. Check the labels.")
        if len(size) != 2 or patch < 1 or min(size) < 1 or size[0] % patch or size[1] % patch:
            raise ValueError(
                f"patches of {patch} x {patch} pixels tile a picture of [rows, columns]; got "
                f"size={list(size)}. Take a patch that divides both."
            )
        if stem == "convs" and (patch < 2 or patch & (patch - 1)):
            raise ValueError(
                f"convolutions of stride 2 make patches of a power of two, 2 or more; got {patch}. Take the "
                "stem 'patch', or such a patch."
            )
        self.backbone = backbone
        if pooling == "token" and not self.backbone.accepts_resets:
            raise ValueError(
                "a class token between the patches leaves no grid, which this backbone reads. Take the "
                "pooling 'mean'."
            )
        for name, values in (("location", location), ("scale", scale)):
            if values is not None and len(values) != channels:
                raise ValueError(
                    f"{name} holds one number for each of the {channels} channels; got {len(values)}. Take "
                    f"the train statistics of the same channels."
                )
        d_model: int = self.backbone.d_model
        self.classes, self.size, self.channels = classes, list(size), channels
        self.patch, self.pooling = patch, pooling
        self.first_chunk = self.chunk = size[0] * size[1]
        tokens = self.first_chunk // patch**2
        self.stem = _stem(stem, channels, d_model, patch)
        self.token = _drawn(1, d_model) if pooling == "token" else None
        flat = not hasattr(self.backbone, "d_out")
        placed = flat if positions is None else positions
        self.positions = _drawn(tokens + (pooling == "token"), d_model) if placed else None
        self.head = nn.Linear(getattr(self.backbone, "d_out", d_model), len(classes))
        self.register_buffer("location", torch.tensor(location if location else [0.0] * channels))
        spread = torch.tensor(scale if scale else [1.0] * channels)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        if drop_path:
            blocks = [module for module in backbone.modules() if isinstance(module, Block)]
            for i, block in enumerate(blocks):
                rate = drop_path * i / max(len(blocks) - 1, 1)
                block.dropout = nn.Sequential(block.dropout, DropPath(rate))  # type: ignore[assignment]

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """Nothing: no picture knows of another."""
        return ()

    def forward(
        self,
        inputs: Float[Tensor, "b t c"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b 1 classes"], tuple]:
        """Logits of the last of the pictures that a row holds one after the other, and an empty state.

        Raises:
            ValueError: the pixels are not those of whole pictures, or resets or dt are given.
        """
        pixels = self.first_chunk
        if resets is not None or dt is not None or inputs.shape[1] % pixels or not inputs.shape[1]:
            given = "" if resets is None and dt is None else ", with resets or dt"
            raise ValueError(
                f"a picture is {self.size[0]} x {self.size[1]} = {pixels} pixels, read as one whole without "
                f"resets and dt; got {inputs.shape[1]} pixels a row{given}. Hand over whole pictures."
            )
        return self.logits(inputs[:, -pixels:])[:, None], ()

    def logits(
        self, inputs: Float[Tensor, "b t c"], lengths: Int[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b classes"]:
        """The answer for each row, which is one picture; ``lengths`` are all its pixels and not looked at."""
        x = self.embed(inputs)
        if self.token is not None:
            middle = x.shape[1] // 2
            between = self.token.to(x.dtype).expand(len(x), -1, -1)
            x = torch.cat([x[:, :middle], between, x[:, middle:]], 1)
        if self.positions is not None:
            x = x + self.positions.to(x.dtype)
        features, _ = self.backbone(x)
        return self.head(features[:, middle] if self.token is not None else features.mean(1))

    def embed(self, inputs: Float[Tensor, "b t c"]) -> Float[Tensor, "b tokens d"]:
        """Pixels as tokens of a grid, in C order. A missing value (NaN) is read as the channel's mean."""
        scaled = torch.nan_to_num((inputs - self.location) / self.scale, nan=0.0)
        return self.stem(scaled.unflatten(1, self.size).permute(0, 3, 1, 2)).flatten(1, 2)

    def loss(self, batch: LabelledBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the pictures."""
        return F.cross_entropy(_wide(self.logits(batch.inputs)), batch.labels)

    def metrics(self, batch: LabelledBatch) -> Mapping[str, Mean]:
        """ "accuracy" over the pictures, and "nats" of cross-entropy of each."""
        with torch.no_grad():
            logits = _wide(self.logits(batch.inputs))
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            right = logits.argmax(-1) == batch.labels
        count = len(batch.labels)
        return {"accuracy": Mean(exact_sum(right), count), "nats": Mean(exact_sum(losses), count)}

    def tokens(self, batch: Any) -> int:
        """Pixels of all pictures."""
        return int(batch.lengths.sum())

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside; places and the class token do not decay."""
        placed = [p for p in (self.positions, self.token) if p is not None]
        own = [ParameterGroup(placed, decay=False)] if placed else []
        return [*self.backbone.parameter_groups(), *own]

    @classmethod
    def example(cls) -> "VisionModel":
        """A small instance for pictures of 6 x 8 grey pixels."""
        return cls(Stack.example(), ["low", "middle", "high"], [6, 8], 1, 2, location=[0.5], scale=[2.0])

    @classmethod
    def example_batch(cls) -> LabelledBatch:
        """Three pictures of noise."""
        numbers = torch.Generator().manual_seed(0)
        pixels = torch.randn(3, 48, 1, generator=numbers)
        return LabelledBatch(pixels, torch.full((3,), 48), torch.tensor([0, 2, 1]))


class _Last(nn.Module):
    """Channels innermost, (b, c, i, j) to (b, i, j, c), with a layer norm over them if wanted."""

    def __init__(self, channels: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1))


class _First(nn.Module):
    """Channels in front again."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _stem(stem: str, channels: int, d_model: int, patch: int) -> nn.Sequential:
    """(b, c, rows, columns) to (b, rows / patch, columns / patch, d)."""
    if stem != "convs":
        return nn.Sequential(nn.Conv2d(channels, d_model, patch, patch), _Last(d_model, stem == "normed"))
    layers: list[nn.Module] = []
    steps = int(math.log2(patch))
    widths = [channels, *(max(1, d_model >> i) for i in reversed(range(steps)))]
    for i in range(steps):
        layers += [nn.GELU()] if i else []
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1), _Last(widths[i + 1], True)]
        layers += [_First()] if i + 1 < steps else []
    return nn.Sequential(*layers)


def _drawn(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
