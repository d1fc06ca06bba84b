"""Pictures of sound: how much of each frequency there is at each time."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np

from hippodrome.analyze.figures import RC, axes


def spectrograms(clips: Mapping[str, np.ndarray], rate: int, title: str) -> bytes:
    """A PNG with the spectrogram of each clip by name, on one scale of time, frequency and loudness.

    Frames of 16 ms with a Hann window, half of them shared by neighbours, in decibels below the loudest
    frame of the clip, down to -80.

    Args:
        clips: samples (t,) of each.
        rate: samples a second.
        title: above all.
    """
    import matplotlib
    from matplotlib.colors import Normalize

    columns = min(4, len(clips))
    rows = -(-len(clips) // columns)
    longest = max(map(len, clips.values()))
    size = max(8, round(0.016 * rate))
    scale = Normalize(-80.0, 0.0)
    with matplotlib.rc_context(RC):
        figure, grid = axes(1.2 + 2.4 * columns, 0.8 + 2.0 * rows, rows, columns, sharex=True, sharey=True)
        image = None
        for ax, (name, samples) in zip(grid.flat, clips.items(), strict=False):
            padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
            power, _, _, _ = ax.specgram(padded, NFFT=size, Fs=rate, noverlap=size // 2, scale="linear")
            decibels = 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-30), 1e-8))
            image = ax.images[0]
            image.set_data(decibels[::-1])
            image.set_norm(scale)
            ax.grid(False)
            ax.set(title=name, xlim=(0, longest / rate), ylim=(0, rate / 2))
        for ax in list(grid.flat)[len(clips) :]:
            ax.set_visible(False)
        figure.colorbar(image, ax=grid, label="dB")
        figure.supxlabel("time (s)")
        figure.supylabel("frequency (Hz)")
        figure.suptitle(title)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
