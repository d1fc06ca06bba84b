"""Numba kernels of the scan over a grid: a tile is a batch row and a block of channels, cells run inside.

The states of all variates at one time lie in a scratch array, row j + 1 that of variate j and row 0 the edge
in front of the first. A cell overwrites its row: what it finds there is the state one step earlier, and the
row before it is already that of now. So one array serves both axes, and every number is read once.

a and u, or the gradient of h, come as flat arrays with the strides of all axes but the last; those of a may
be zero. All else is dense. ``sizes`` is (t, v, d, width of a tile).
"""

from numba import njit

from hippodrome.ops._lanes_kernel import LANES, load, load_some, prefetch, scratch, store, store_some, zeros


@njit(nogil=True, cache=True)
def advance(a, at_a, a_kind, u, at_u, u_kind, size, s, row, width, h, at_h, d):
    """One cell of a tile; ``row`` is where its two states lie in ``s``, the row before it in front."""
    for i in range(0, size, LANES):
        n = size - i
        own, beside = row + i, row - 2 * width + i
        h1 = (
            load_some(a, at_a + i, n) * load(s, own)
            + load_some(a, at_a + a_kind + i, n) * load(s, own + width)
            + load_some(u, at_u + i, n)
        )
        h2 = (
            load_some(a, at_a + 2 * a_kind + i, n) * load(s, beside)
            + load_some(a, at_a + 3 * a_kind + i, n) * load(s, beside + width)
            + load_some(u, at_u + u_kind + i, n)
        )
        store(s, own, h1)
        store(s, own + width, h2)
        store_some(h, at_h + i, n, h1)
        store_some(h, at_h + d + i, n, h2)


@njit(nogil=True, cache=True)
def forward(first, last, sizes, a_strides, u_strides, a, u, state, edge, resets, h):
    """Tiles [first, last): all states, written to ``h`` (b, t, v, 2, d)."""
    t, v, d, width = sizes
    per_row = (d + width - 1) // width
    s = scratch((v + 1) * 2 * width, state)
    for tile in range(first, last):
        b, start = tile // per_row, tile % per_row * width
        size = min(width, d - start)
        s[:] = 0
        for j in range(2 * v):
            for i in range(0, size, LANES):
                store(s, (j + 2) * width + i, load_some(state, (b * 2 * v + j) * d + start + i, size - i))
        for k in range(t):
            if resets.size > 0 and resets[b * t + k]:
                s[:] = 0
            if edge.size > 0:
                for j in range(2):
                    for i in range(0, size, LANES):
                        store(
                            s, j * width + i, load_some(edge, ((b * t + k) * 2 + j) * d + start + i, size - i)
                        )
            at_a = b * a_strides[0] + k * a_strides[1] + start
            at_u = b * u_strides[0] + k * u_strides[1] + start
            at_h = (b * t + k) * v * 2 * d + start
            for j in range(v):
                row = (j + 1) * 2 * width
                advance(a, at_a, a_strides[3], u, at_u, u_strides[3], size, s, row, width, h, at_h, d)
                at_a += a_strides[2]
                at_u += u_strides[2]
                at_h += 2 * d


@njit(nogil=True, cache=True)
def retreat(
    a, at_a, a_kind, g, at_g, g_kind, size, p, row, q, width,
    before, at_before, beside, at_beside, fresh, border, grad_a, out_a, grad_u, out_u, d,
):  # fmt: skip
    """One cell of a tile back. ``p`` holds what comes from the next time, ``q`` from the next variate.

    ``before`` and ``beside`` hold the states that the cell read; it read none at a ``fresh`` time, and none
    at a ``border`` without an edge.
    """
    for i in range(0, size, LANES):
        n = size - i
        g1 = load_some(g, at_g + i, n) + load(p, row + i) + load(q, i)
        g2 = load_some(g, at_g + g_kind + i, n) + load(p, row + width + i) + load(q, width + i)
        store_some(grad_u, out_u + i, n, g1)
        store_some(grad_u, out_u + d + i, n, g2)
        if fresh:
            store_some(grad_a, out_a + i, n, zeros(p))
            store_some(grad_a, out_a + d + i, n, zeros(p))
            store(p, row + i, zeros(p))
            store(p, row + width + i, zeros(p))
        else:
            store_some(grad_a, out_a + i, n, g1 * load_some(before, at_before + i, n))
            store_some(grad_a, out_a + d + i, n, g1 * load_some(before, at_before + d + i, n))
            store(p, row + i, g1 * load_some(a, at_a + i, n))
            store(p, row + width + i, g1 * load_some(a, at_a + a_kind + i, n))
        if border:
            store_some(grad_a, out_a + 2 * d + i, n, zeros(p))
            store_some(grad_a, out_a + 3 * d + i, n, zeros(p))
        else:
            store_some(grad_a, out_a + 2 * d + i, n, g2 * load_some(beside, at_beside + i, n))
            store_some(grad_a, out_a + 3 * d + i, n, g2 * load_some(beside, at_beside + d + i, n))
        store(q, i, g2 * load_some(a, at_a + 2 * a_kind + i, n))
        store(q, width + i, g2 * load_some(a, at_a + 3 * a_kind + i, n))


@njit(nogil=True, cache=True)
def backward(
    first, last, sizes, a_strides, g_strides, a, g, state, edge, resets, h,
    grad_a, grad_u, grad_state, grad_edge,
):  # fmt: skip
    """Tiles [first, last): the gradients of a, u, the first states and the edge, from that of h."""
    t, v, d, width = sizes
    per_row = (d + width - 1) // width
    p, q = scratch(v * 2 * width, h), scratch(2 * width, h)
    for tile in range(first, last):
        b, start = tile // per_row, tile % per_row * width
        size = min(width, d - start)
        p[:] = 0
        for k in range(t - 1, -1, -1):
            fresh = resets.size > 0 and resets[b * t + k]
            q[:] = 0
            for j in range(v - 1, -1, -1):
                cell = (b * t + k) * v + j
                at_a = b * a_strides[0] + k * a_strides[1] + j * a_strides[2] + start
                at_g = b * g_strides[0] + k * g_strides[1] + j * g_strides[2] + start
                out_a, out_u, row = cell * 4 * d + start, cell * 2 * d + start, j * 2 * width
                # Asked for now, the cell of the next step back arrives while the rest of this one is done.
                for i in range(0, size, LANES):
                    prefetch(a, at_a - a_strides[1] + i, 0)
                    prefetch(g, at_g - g_strides[1] + i, 0)
                before, at_before = h, out_u - 2 * v * d
                if k == 0:
                    before, at_before = state, (b * v + j) * 2 * d + start
                beside, at_beside = h, out_u - 2 * d
                if j == 0:
                    beside, at_beside = edge, (b * t + k) * 2 * d + start
                border = j == 0 and edge.size == 0
                retreat(
                    a, at_a, a_strides[3], g, at_g, g_strides[3], size, p, row, q, width,
                    before, at_before, beside, at_beside, fresh, border, grad_a, out_a, grad_u, out_u, d,
                )  # fmt: skip
            if edge.size > 0:
                for j in range(2):
                    for i in range(0, size, LANES):
                        at = ((b * t + k) * 2 + j) * d + start + i
                        store_some(grad_edge, at, size - i, load(q, j * width + i))
        for j in range(2 * v):
            for i in range(0, size, LANES):
                store_some(grad_state, (b * 2 * v + j) * d + start + i, size - i, load(p, j * width + i))
