"""Samples of sound as 256 levels and back: mu-law, finer near silence, or even steps."""

from typing import Literal

import numpy as np

Quantization = Literal["mu-law", "linear"]

LEVELS = 256
SILENCE = 128
"""The level of a sample that is zero."""


def quantize(samples: np.ndarray, quantization: Quantization = "mu-law") -> np.ndarray:
    """Samples (t,) to levels 0..255 as bytes, after a division by the largest magnitude there is.

    The quantizer of Goel, Gu, Donahue, Ré 2022, arXiv 2202.09729, as their code has it:
    floor((v + 1) / 2 (256 - 0.01) + 0.005) of v = sign(x) log(1 + 255 |x|) / log(256), or of v = x. They
    scale a signal by its least and largest value; here by its largest magnitude, so that zero stays zero
    and silence is one level in every recording.
    """
    x = samples.astype(np.float64)
    x = x / max(float(np.abs(x).max(initial=0.0)), 1e-12)
    v = np.sign(x) * np.log1p((LEVELS - 1) * np.abs(x)) / np.log(LEVELS) if quantization == "mu-law" else x
    return np.floor((v + 1) / 2 * (LEVELS - 0.01) + 0.005).astype(np.uint8)


def dequantize(levels: np.ndarray, quantization: Quantization = "mu-law") -> np.ndarray:
    """Levels 0..255 (t,) to samples in [-1, 1): v = q / 128 - 1, through the inverse of mu-law."""
    v = levels.astype(np.float64) / (LEVELS // 2) - 1
    if quantization == "linear":
        return v
    return np.sign(v) * (LEVELS ** np.abs(v) - 1) / (LEVELS - 1)


__all__ = ["LEVELS", "SILENCE", "Quantization", "dequantize", "quantize"]
