"""Numba kernel of one token of gated linear attention: one tile is one head of one batch row."""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    exp2,
    get,
    load,
    load_some,
    scratch,
    store,
    store_some,
    zeros,
)

__all__ = ["SAMPLES", "update"]
WIDE = 4 * LANES


@njit(nogil=True, cache=True)
def update(first, last, sizes, strides, addresses, sample, states):
    """Tiles [first, last); ``addresses``: q, k, v, the logarithms of the decays, state and y.

    The samples are of q, k, v and y, and of all else.
    """
    h, keys, values = sizes
    q_b, q_h, k_b, k_h, v_b, v_h, g_b, g_h = strides
    q, k, v, y = (
        at(addresses[0], sample),
        at(addresses[1], sample),
        at(addresses[2], sample),
        at(addresses[5], sample),
    )
    logs, state = at(addresses[3], states), at(addresses[4], states)
    decays = scratch(keys, states)
    whole = values // WIDE * WIDE
    for tile in range(first, last):
        head, b = tile % h, tile // h
        jq, jk, jv = b * q_b + head * q_h, b * k_b + head * k_h, b * v_b + head * v_h
        for i in range(0, keys, LANES):
            few = load_some(logs, b * g_b + head * g_h + i, keys - i)
            store_some(decays, i, keys - i, exp2(few * LOG2_E))
        # Four cache lines of each row at once, so that memory is read in long runs.
        for j in range(0, whole, WIDE):
            v0, v1 = load(v, jv + j), load(v, jv + j + LANES)
            v2, v3 = load(v, jv + j + 2 * LANES), load(v, jv + j + 3 * LANES)
            y0, y1, y2, y3 = zeros(states), zeros(states), zeros(states), zeros(states)
            for i in range(keys):
                decay, key, query = decays[i], get(k, jk + i), get(q, jq + i)
                place = (tile * keys + i) * values + j
                s0 = load(state, place) * decay + v0 * key
                s1 = load(state, place + LANES) * decay + v1 * key
                s2 = load(state, place + 2 * LANES) * decay + v2 * key
                s3 = load(state, place + 3 * LANES) * decay + v3 * key
                store(state, place, s0)
                store(state, place + LANES, s1)
                store(state, place + 2 * LANES, s2)
                store(state, place + 3 * LANES, s3)
                y0, y1 = y0 + s0 * query, y1 + s1 * query
                y2, y3 = y2 + s2 * query, y3 + s3 * query
            place = tile * values + j
            store(y, place, y0)
            store(y, place + LANES, y1)
            store(y, place + 2 * LANES, y2)
            store(y, place + 3 * LANES, y3)
        for j in range(whole, values, LANES):
            rest = values - j
            value, out = load_some(v, jv + j, rest), zeros(states)
            for i in range(keys):
                place = (tile * keys + i) * values + j
                s = load_some(state, place, rest) * decays[i] + value * get(k, jk + i)
                store_some(state, place, rest, s)
                out = out + s * get(q, jq + i)
            store_some(y, tile * values + j, rest, out)
