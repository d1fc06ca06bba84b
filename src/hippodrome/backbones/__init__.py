"""Backbones: how mixers are stacked, and what makes one mixer of two or of one an axis."""

MIXERS = (
    "bidirectional",
    "bimamba",
    "butterfly_conv",
    "evss",
    "full_attention",
    "hydra",
    "inverted_residual",
    "matrix_mixer",
    "parallel",
    "reordered_mamba",
    "s4nd",
    "scan2d",
    "ss2d",
)
"""The files of this folder whose class is a mixer itself, and so stands wherever a mixer may."""

SHAPES = (
    "closed_loop",
    "hiss",
    "inverted",
    "mamba_mixer",
    "pyramid",
    "rcps",
    "sashimi",
    "shared_attention",
    "tsm2",
    "two_scales",
    "variates",
    "vim2",
)
"""The files of this folder that are made of stacks and stand in front of a colon in a pattern. Each has a
function ``spec(stacks, d_model, depth, options)`` that gives the rest of its spec; ``stacks`` holds a maker
of stack specs, ``stack(width, depth)``, for each pattern behind a colon."""

SCANS = ("atrous", "cross", "diagonals", "snakes")
"""The sets of orders of ``ops.scan_order`` that stand in front of a mixer in a pattern (``cross-mamba``)."""
