"""The learning rate as a pure function of the part of the budget that is spent."""

import math


def factor(fraction: float, warmup: float, final: float) -> float:
    """What the peak learning rate is multiplied by when ``fraction`` of the budget is spent.

    A straight rise from a tenth over the first ``warmup`` of the budget, then half a cosine from 1 down to
    ``final`` (Loshchilov, Hutter 2017, arXiv 1608.03983, equation 5, without restarts). It starts above zero
    because the first step would otherwise do nothing. Having no state, it resumes exactly.
    """
    fraction = min(max(fraction, 0.0), 1.0)
    if fraction < warmup:
        return 0.1 + 0.9 * fraction / warmup
    progress = (fraction - warmup) / (1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
