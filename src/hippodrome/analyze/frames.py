"""Frames to look at: what came, and what a video model goes on with by itself, as a PNG picture."""

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.models.video import VideoModel

GAP = 2
"""Pixels between frames."""
BETWEEN, BEGIN = 0.25, 1.0
"""Brightness of the gaps, and of the gap at which the open loop begins."""


class Strip(NamedTuple):
    """Frames (r, t, rows, columns, colours), a true video first, and how many of them were shown."""

    frames: Float[Tensor, "r t i j c"]
    context: int


@torch.no_grad()
def continued(
    models: Mapping[str, VideoModel], frames: Float[Tensor, "t i j c"], context: int | None = None
) -> Strip:
    """The video itself, and below it what each model makes of it from its first ``context`` frames alone.

    Where a model was shown frames its row holds them; behind them stands what it imagines, each frame read
    from its own last one. ``context`` is the first model's where it is None.

    Raises:
        ValueError: no models, or a context that leaves nothing to imagine.
    """
    if not models:
        raise ValueError("frames are continued by a model at least; got none. Name one.")
    context = next(iter(models.values())).context if context is None else context
    if not 0 < context < len(frames):
        raise ValueError(
            f"of {len(frames)} frames some are shown and some imagined; got a context of {context}. Take "
            f"{max(1, len(frames) // 2)}."
        )
    rows = [frames.cpu()]
    for model in models.values():
        here = next(model.parameters()).device
        dreamt, _ = model.imagine(frames[None, :context].to(here), len(frames) - context)
        rows.append(torch.cat([frames[:context].cpu(), dreamt[0].float().cpu()]))
    return Strip(torch.stack(rows), context)


def png(strip: Strip, scale: int = 2) -> bytes:
    """The strip as a picture in the PNG format: a row for each video, time to the right.

    A bright line stands where the open loop begins. One value a pixel is shown grey, three as colours.

    Args:
        strip: what to show.
        scale: pixels of the picture for each pixel of a frame.

    Raises:
        ValueError: another number of values a pixel.
    """
    r, t, i, j, c = strip.frames.shape
    if c not in (1, 3):
        raise ValueError(f"a picture has one value a pixel or three; got frames of {c}. Choose among them.")
    shown = strip.frames.repeat_interleave(scale, 2).repeat_interleave(scale, 3).clamp(0, 1).numpy()
    i, j = i * scale, j * scale
    canvas = np.full((r * (i + GAP) + GAP, t * (j + GAP) + GAP, c), BETWEEN)
    for row in range(r):
        for k in range(t):
            top, left = GAP + row * (i + GAP), GAP + k * (j + GAP)
            canvas[top : top + i, left : left + j] = shown[row, k]
    line = strip.context * (j + GAP)
    canvas[:, line : line + GAP] = BEGIN
    return encode((canvas * 255).round().astype(np.uint8))


def encode(pixels: np.ndarray) -> bytes:
    """A PNG file of bytes (rows, columns, 1) or (rows, columns, 3): a header, a compressed stream, an end.

    (ISO/IEC 15948, "Portable Network Graphics", sections 5 and 11; rows are stored without a filter.)
    """
    rows, columns, colours = pixels.shape
    lines = np.concatenate([np.zeros((rows, 1), dtype=np.uint8), pixels.reshape(rows, -1)], 1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, {1: 0, 3: 2}[colours], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
