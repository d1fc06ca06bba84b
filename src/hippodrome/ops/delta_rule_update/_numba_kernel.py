"""Numba kernel of one token of the delta rule: one tile is one head of one batch row."""

import math

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, store, store_some, zeros

__all__ = ["SAMPLES", "update"]
WIDE = 4 * LANES


@njit(nogil=True, cache=True)
def update(first, last, sizes, strides, addresses, sample, states):
    """Tiles [first, last); ``addresses``: q, k, v, beta, the logarithms of the gates (or 0), state and y.

    The samples are of q, k, v and y, and of all else. Columns are independent: those that are read together
    stay in the nearest cache between the pass that finds what is stored and the one that replaces it.
    """
    h, keys, values = sizes
    q_b, q_h, k_b, k_h, v_b, v_h, beta_b, g_b = strides
    q, k, v, y = (
        at(addresses[0], sample),
        at(addresses[1], sample),
        at(addresses[2], sample),
        at(addresses[6], sample),
    )
    betas, logs, state = at(addresses[3], states), at(addresses[4], states), at(addresses[5], states)
    one = states.dtype.type(1)
    whole = values // WIDE * WIDE
    for tile in range(first, last):
        head, b = tile % h, tile // h
        jq, jk, jv = b * q_b + head * q_h, b * k_b + head * k_h, b * v_b + head * v_h
        beta, gate = betas[b * beta_b + head], one
        if addresses[4] != 0:
            gate = states.dtype.type(math.exp(logs[b * g_b + head]))
        for j in range(0, whole, WIDE):
            w0, w1, w2, w3 = zeros(states), zeros(states), zeros(states), zeros(states)
            for i in range(keys):
                key, place = get(k, jk + i) * gate, (tile * keys + i) * values + j
                w0 = w0 + load(state, place) * key
                w1 = w1 + load(state, place + LANES) * key
                w2 = w2 + load(state, place + 2 * LANES) * key
                w3 = w3 + load(state, place + 3 * LANES) * key
            w0 = (load(v, jv + j) - w0) * beta
            w1 = (load(v, jv + j + LANES) - w1) * beta
            w2 = (load(v, jv + j + 2 * LANES) - w2) * beta
            w3 = (load(v, jv + j + 3 * LANES) - w3) * beta
            y0, y1, y2, y3 = zeros(states), zeros(states), zeros(states), zeros(states)
            for i in range(keys):
                key, query, place = get(k, jk + i), get(q, jq + i), (tile * keys + i) * values + j
                s0 = load(state, place) * gate + w0 * key
                s1 = load(state, place + LANES) * gate + w1 * key
                s2 = load(state, place + 2 * LANES) * gate + w2 * key
                s3 = load(state, place + 3 * LANES) * gate + w3 * key
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
            rest, write = values - j, zeros(states)
            for i in range(keys):
                place = (tile * keys + i) * values + j
                write = write + load_some(state, place, rest) * (get(k, jk + i) * gate)
            write, out = (load_some(v, jv + j, rest) - write) * beta, zeros(states)
            for i in range(keys):
                place = (tile * keys + i) * values + j
                s = load_some(state, place, rest) * gate + write * get(k, jk + i)
                store_some(state, place, rest, s)
                out = out + s * get(q, jq + i)
            store_some(y, tile * values + j, rest, out)
