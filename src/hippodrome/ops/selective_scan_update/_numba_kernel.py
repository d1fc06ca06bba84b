"""Numba kernel of one token of the selective scan: one tile is sixteen channels of one batch row.

Softplus, skip and gate are done for the sixteen at once; the state of each goes through the lanes in runs of
sixteen coordinates.
"""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    exp2,
    get,
    load,
    load_some,
    put,
    scratch,
    sigmoid,
    softplus,
    store,
    store_some,
    total,
    zeros,
)

__all__ = ["LANES", "SAMPLES", "update"]


@njit(nogil=True, cache=True)
def update(first, last, sizes, strides, use_softplus, addresses, sample, steps, states):
    """Tiles [first, last); ``addresses``: u, dt, B, C, z (or 0), A, D (or 0), bias (or 0), state and y.

    The samples are of u, B, C, z and y, of dt, and of all else.
    """
    d, n, g = sizes
    u_b, dt_b, z_b, B_b, B_g, C_b, C_g = strides
    u, dt, y = at(addresses[0], sample), at(addresses[1], steps), at(addresses[9], sample)
    B, C, z = at(addresses[2], sample), at(addresses[3], sample), at(addresses[4], sample)
    A, D, bias, state = (
        at(addresses[5], states),
        at(addresses[6], states),
        at(addresses[7], states),
        at(addresses[8], states),
    )
    width = d // g
    blocks = (width + LANES - 1) // LANES
    deltas, drive, outs = scratch(LANES, states), scratch(LANES, states), scratch(LANES, states)
    for tile in range(first, last):
        block, part, b = tile % blocks, (tile // blocks) % g, tile // blocks // g
        start, size = part * width + block * LANES, min(width - block * LANES, LANES)
        delta = load_some(dt, b * dt_b + start, size) + zeros(states)
        if addresses[7] != 0:
            delta = delta + load_some(bias, start, size)
        if use_softplus:
            delta = softplus(delta)
        x = load_some(u, b * u_b + start, size)
        store(deltas, 0, delta * LOG2_E)
        store(drive, 0, delta * x)
        jb, jc = b * B_b + part * B_g, b * C_b + part * C_g
        for i in range(size):
            row = start + i
            out = zeros(states)
            for k in range(0, n, LANES):
                rest = n - k
                place = (b * d + row) * n + k
                decay = exp2(load_some(A, row * n + k, rest) * get(deltas, i))
                h = decay * load_some(state, place, rest) + load_some(B, jb + k, rest) * get(drive, i)
                store_some(state, place, rest, h)
                out = out + h * load_some(C, jc + k, rest)
            put(outs, i, total(out))
        out = load(outs, 0)
        if addresses[6] != 0:
            out = out + x * load_some(D, start, size)
        if addresses[4] != 0:
            gate = load_some(z, b * z_b + start, size)
            out = out * gate * sigmoid(gate)
        store_some(y, b * d + start, size, out)
