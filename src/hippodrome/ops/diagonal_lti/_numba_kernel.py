# mypy: ignore-errors
"""Numba kernels of the diagonal time-invariant system: a tile is one row and a register's worth of channels.

One channel is one lane of a vector, so in the layout (b, t, d) nothing is transposed and nothing is summed
across lanes. Time inside a tile is cut into chunks of L steps; everything that costs is one small matrix
product, ``tile_product``, whose accumulators stay in registers: it is written in LLVM's own terms, because
loops over constant-size arrays are not promoted to registers.

With p = exp(log_a), h the state that enters a chunk and g the gradient that comes back into its last state:

    forward   y_i  = sum_{j<=i} k_{i-j} u_j + Re w p^(i+1) h          k_l = Re sum_n w p^l (+ skip at l = 0)
              h'   = p^L h + E,               E  = sum_j p^(L-1-j) u_j
    backward  gu_j = sum_{i>=j} k_{i-j} gy_i + Re conj(p)^(L-1-j) g
              g'   = conj(p)^L g + conj(w) F, F  = sum_i conj(p)^(i+1) gy_i
              gw  += F conj(h),               r_l += sum_j gy_{j+l} u_j
              ga  += conj(w h) F1 + g conj(E1) + L conj(p)^L g conj(h)

with F1 = sum_i (i+1) conj(p)^(i+1) gy_i and E1 = sum_j (L-1-j) p^(L-1-j) u_j, and at the end
gw += sum_l conj(p)^l r_l, ga += conj(w) sum_l l conj(p)^l r_l, gskip = r_0. A chunk that holds a reset, or is
shorter than L, runs one step at a time instead.
"""

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

FAST = {"contract", "reassoc", "nsz", "arcp"}
_FEATURES = binding.get_host_cpu_features()
_WIDE = bool(_FEATURES.get("avx512f"))
_MIDDLE = bool(_FEATURES.get("avx"))
BYTES = 64 if _WIDE else 32 if _MIDDLE else 16
"""Size of a vector register."""
ROWS = 4
COLUMNS = 2 if _MIDDLE and not _WIDE else 4
"""Accumulators of one product: with 16 registers 4 x 2, with 32 of them 4 x 4."""
LAGS = 8
GROUP = 8
"""Chunks that go through one pass over the tables."""


class Vector(types.Type):
    """A register of one number for each of a tile's channels."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How LLVM holds it."""

    def __init__(self, dmm, fe_type):
        element, width = (ir.FloatType(), 4) if fe_type.dtype == types.float32 else (ir.DoubleType(), 8)
        super().__init__(dmm, fe_type, ir.VectorType(element, BYTES // width))


def _pointer(context, builder, array_type, array, offset):
    vector = context.get_value_type(Vector(array_type.dtype))
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _align(context, array_type):
    # Rows of the caller's tensors may start anywhere.
    return context.get_abi_sizeof(context.get_value_type(array_type.dtype))


@intrinsic
def load(typingctx, array, offset):
    """The register that starts at element ``offset`` of a flat array."""

    def codegen(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        value.align = _align(context, signature.args[0])
        return value

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def fetch(typingctx, array, offset, like):
    """The register that starts at element ``offset`` of a flat float64 array, in the type of ``like``."""

    def codegen(context, builder, signature, arguments):
        array_type, _, like_type = signature.args
        vector = context.get_value_type(Vector(like_type.dtype))
        data = cgutils.create_struct_proxy(array_type)(context, builder, arguments[0]).data
        source = ir.VectorType(ir.DoubleType(), vector.count)
        value = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), source.as_pointer()))
        value.align = 8
        return value if vector == source else builder.fptrunc(value, vector)

    return Vector(like.dtype)(array, types.intp, like), codegen


@intrinsic
def store(typingctx, array, offset, value):
    """Write a register at element ``offset`` of a flat array."""

    def codegen(context, builder, signature, arguments):
        kept = builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]))
        kept.align = _align(context, signature.args[0])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def madd(typingctx, a, b, c):
    """a * b + c."""

    def codegen(context, builder, signature, arguments):
        x, y, z = arguments
        return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))

    return a(a, b, c), codegen


@intrinsic
def nmadd(typingctx, a, b, c):
    """c - a * b."""

    def codegen(context, builder, signature, arguments):
        x, y, z = arguments
        return builder.fsub(z, builder.fmul(x, y, flags=("contract",)), flags=("contract",))

    return a(a, b, c), codegen


@intrinsic
def mul(typingctx, a, b):
    """a * b."""

    def codegen(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return a(a, b), codegen


@intrinsic
def splat(typingctx, number, like):
    """A register that holds one whole number in every lane."""

    def codegen(context, builder, signature, arguments):
        vector = context.get_value_type(Vector(signature.args[1].dtype))
        one = builder.sitofp(arguments[0], vector.element)
        nothing, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(builder.insert_element(nothing, one, first), nothing, mask)

    return Vector(like.dtype)(types.intp, like), codegen


@intrinsic
def add(typingctx, a, b):
    """a + b."""

    def codegen(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), codegen


def _make_product(rows, columns):
    """A matrix product on registers, out[m, r] (+)= sum_{j < steps} A[m, j] B[j, r], of a fixed size."""

    @intrinsic
    def product(typingctx, A, a0, am, aj, B, b0, bj, br, out, o0, om, step_r, steps, keep):
        arguments_ = (A, *[types.intp] * 3, B, *[types.intp] * 3, out, *[types.intp] * 4, types.boolean)

        def codegen(context, builder, signature, arguments):
            A_, a0, am, aj, B_, b0, bj, br, out_, o0, om, step_r, steps, keep = arguments
            kinds = signature.args
            vector = context.get_value_type(Vector(kinds[0].dtype))
            align = _align(context, kinds[0])
            index = steps.type

            def constant(k):
                return ir.Constant(index, k)

            def at(kind, array, base, *terms):
                for stride, k in terms:
                    base = builder.add(base, builder.mul(stride, constant(k)))
                return _pointer(context, builder, kind, array, base)

            def read(pointer):
                value = builder.load(pointer)
                value.align = align
                return value

            cells = [(m, r) for m in range(rows) for r in range(columns)]
            targets = [at(kinds[8], out_, o0, (om, m), (step_r, r)) for m, r in cells]
            zero = ir.Constant(vector, [0.0] * vector.count)
            with builder.if_else(keep) as (kept, fresh):
                with kept:
                    old = [read(target) for target in targets]
                    kept_block = builder.basic_block
                with fresh:
                    fresh_block = builder.basic_block
            start = []
            for value in old:
                phi = builder.phi(vector)
                phi.add_incoming(value, kept_block)
                phi.add_incoming(zero, fresh_block)
                start.append(phi)
            before = builder.basic_block
            head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
            builder.branch(head)
            builder.position_at_end(head)
            loop = [builder.phi(index) for _ in range(3)]
            for phi, value in zip(loop, (constant(0), a0, b0), strict=True):
                phi.add_incoming(value, before)
            sums = []
            for value in start:
                phi = builder.phi(vector)
                phi.add_incoming(value, before)
                sums.append(phi)
            builder.cbranch(builder.icmp_signed("<", loop[0], steps), body, done)
            builder.position_at_end(body)
            left = [read(at(kinds[0], A_, loop[1], (am, m))) for m in range(rows)]
            right = [read(at(kinds[4], B_, loop[2], (br, r))) for r in range(columns)]
            flags = ("contract",)
            for (m, r), phi in zip(cells, sums, strict=True):
                total = builder.fadd(builder.fmul(left[m], right[r], flags=flags), phi, flags=flags)
                phi.add_incoming(total, body)
            for phi, stride in zip(loop, (constant(1), aj, bj), strict=True):
                phi.add_incoming(builder.add(phi, stride), body)
            builder.branch(head)
            builder.position_at_end(done)
            for phi, target in zip(sums, targets, strict=True):
                builder.store(phi, target).align = align
            return context.get_dummy_value()

        return types.void(*arguments_), codegen

    return product


tile_product = _make_product(ROWS, COLUMNS)
lag_product = _make_product(LAGS, 1)


@njit(nogil=True, cache=True)
def lanes(like):
    """Channels in a tile of this element type."""
    return BYTES // like.itemsize


@njit(nogil=True, cache=True)
def padded(n):
    """Columns that hold n real and n imaginary parts, a multiple of a product's columns."""
    return (2 * n + COLUMNS - 1) // COLUMNS * COLUMNS


@njit(nogil=True, cache=True)
def scratch(size, like):
    """A flat array of ``size`` elements that starts on a cache line."""
    raw = np.empty(size + 64, like.dtype)
    start = (-raw.ctypes.data) % 64 // like.itemsize
    return raw[start : start + size]


@njit(nogil=True, cache=True)
def _down(at, column, length, width):
    """Where a table that maps steps to columns of a state holds its entry."""
    return ((column // COLUMNS * length + at) * COLUMNS + column % COLUMNS) * width


@njit(nogil=True, cache=True)
def _along(at, column, q, width):
    """Where a table that maps the q columns of a state to steps holds its entry."""
    return ((at // COLUMNS * q + column) * COLUMNS + at % COLUMNS) * width


@njit(nogil=True, cache=True, fastmath=FAST)
def _fill(start, size, log_a, w, skip, length, both, table, kernel, small):
    """Tables of the channels [start, start + size), powers taken in float64.

    ``table`` (6 L padded(n) lanes) takes E, Y and, if ``both`` ways are wanted, F, F1, E1, G, in the order in
    which products read them; ``kernel`` ((COLUMNS - 1 + L) lanes) k after zeros; ``small`` (4, padded(n)
    lanes) p, p^L, w and the skip. A complex number is its real part in column i and its imaginary part in
    column n + i.
    """
    n = log_a.shape[1]
    width = lanes(table)
    q = padded(n)
    run = length * q * width
    step_re, step_im, w_re, w_im = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    p_re, p_im, y_re, y_im = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    k = np.zeros(length * width)
    small[:] = 0
    if 2 * n < q:
        table[:] = 0
    for i in range(n):
        step_re[:], step_im[:], w_re[:], w_im[:] = 0, 0, 0, 0
        p_re[:], p_im[:] = 1, 0
        for lane in range(size):
            c = start + lane
            radius = np.exp(np.float64(log_a[c, i, 0]))
            step_re[lane] = radius * np.cos(np.float64(log_a[c, i, 1]))
            step_im[lane] = radius * np.sin(np.float64(log_a[c, i, 1]))
            w_re[lane], w_im[lane] = w[c, i, 0], w[c, i, 1]
            small[0, i * width + lane], small[0, (n + i) * width + lane] = step_re[lane], step_im[lane]
            small[2, i * width + lane], small[2, (n + i) * width + lane] = w[c, i, 0], w[c, i, 1]
        for j in range(length + 1):
            # p^j belongs to the step j before the last of the chunk, and to the j-th after its start.
            for lane in range(width):
                y_re[lane] = w_re[lane] * p_re[lane] - w_im[lane] * p_im[lane]
            for lane in range(width):
                y_im[lane] = -(w_re[lane] * p_im[lane] + w_im[lane] * p_re[lane])
            re_p, im_p = fetch(p_re, 0, table), fetch(p_im, 0, table)
            times = splat(j, table)
            if j < length:
                for lane in range(width):
                    k[j * width + lane] += y_re[lane]
                at = length - 1 - j
                re, im = _down(at, i, length, width), _down(at, n + i, length, width)
                store(table, re, re_p)
                store(table, im, im_p)
                if both:
                    store(table, 4 * run + re, mul(times, re_p))
                    store(table, 4 * run + im, mul(times, im_p))
                    store(table, 5 * run + _along(at, i, q, width), re_p)
                    store(table, 5 * run + _along(at, n + i, q, width), im_p)
            if j > 0:
                at = j - 1
                store(table, run + _along(at, i, q, width), fetch(y_re, 0, table))
                store(table, run + _along(at, n + i, q, width), fetch(y_im, 0, table))
                if both:
                    re, im = _down(at, i, length, width), _down(at, n + i, length, width)
                    store(table, 2 * run + re, re_p)
                    store(table, 2 * run + im, mul(splat(-1, table), im_p))
                    store(table, 3 * run + re, mul(times, re_p))
                    store(table, 3 * run + im, mul(splat(-j, table), im_p))
            if j == length:
                store(small[1], i * width, re_p)
                store(small[1], (n + i) * width, im_p)
            for lane in range(width):
                re_ = p_re[lane]
                p_re[lane] = re_ * step_re[lane] - p_im[lane] * step_im[lane]
                p_im[lane] = re_ * step_im[lane] + p_im[lane] * step_re[lane]
    for lane in range(size):
        small[3, lane] = skip[start + lane]
        k[lane] += skip[start + lane]
    kernel[: (COLUMNS - 1) * width] = 0
    kernel[(COLUMNS - 1) * width :] = k


@njit(nogil=True, cache=True)
def _pack(source, at, d, size, width, steps, into, o):
    """Rows of ``size`` channels, d apart from element ``at`` on, to registers from element ``o`` on."""
    for s in range(steps):
        if size == width:
            store(into, o + s * width, load(source, at + s * d))
        else:
            for lane in range(width):
                into[o + s * width + lane] = source[at + s * d + lane] if lane < size else 0


@njit(nogil=True, cache=True)
def _unpack(buffer, o, d, size, width, steps, target, at):
    """The way back."""
    for s in range(steps):
        if size == width:
            store(target, at + s * d, load(buffer, o + s * width))
        else:
            for lane in range(size):
                target[at + s * d + lane] = buffer[o + s * width + lane]


@njit(nogil=True, cache=True)
def _regular(c, length, t, row, resets):
    """Whether chunk c of a row is whole and holds no reset."""
    if (c + 1) * length > t:
        return False
    if resets.size > 0:
        for s in range(c * length, (c + 1) * length):
            if resets[row, s]:
                return False
    return True


@njit(nogil=True, cache=True)
def _from_pairs(pairs, row, start, size, n, width, into):
    """State (b, d, n, 2) of one row and the tile's channels to registers."""
    into[:] = 0
    for lane in range(size):
        for i in range(n):
            into[i * width + lane] = pairs[row, start + lane, i, 0]
            into[(n + i) * width + lane] = pairs[row, start + lane, i, 1]


@njit(nogil=True, cache=True)
def _to_pairs(buffer, row, start, size, n, width, pairs):
    """The way back."""
    for lane in range(size):
        for i in range(n):
            pairs[row, start + lane, i, 0] = buffer[i * width + lane]
            pairs[row, start + lane, i, 1] = buffer[(n + i) * width + lane]


@njit(nogil=True, cache=True)
def _steps(small, n, width, steps, marks, ub, h, yb):
    """A chunk one step at a time, by the definition: advances h, writes yb."""
    p, w, skip = small[0], small[2], small[3]
    for s in range(steps):
        if marks.size > 0 and marks[s]:
            h[:] = 0
        x = load(ub, s * width)
        y = mul(x, load(skip, 0))
        for i in range(n):
            re, im = i * width, (n + i) * width
            pr, pi, hr, hi = load(p, re), load(p, im), load(h, re), load(h, im)
            nr = nmadd(pi, hi, madd(pr, hr, x))
            ni = madd(pr, hi, mul(pi, hr))
            store(h, re, nr)
            store(h, im, ni)
            y = nmadd(load(w, im), ni, madd(load(w, re), nr, y))
        store(yb, s * width, y)


@njit(nogil=True, cache=True)
def forward(first, last_tile, shape, length, u, log_a, w, skip, state, resets, y, last, kept):
    """Tiles [first, last_tile) of u and y, flat (b t d); ``kept`` takes the state that enters each chunk.

    ``kept`` is flat (tiles, chunks, padded(n) lanes) and ROWS states more, or empty.
    """
    rows, t, d, n = shape
    width = lanes(u)
    q = padded(n)
    state_size = q * width
    chunks = (t + length - 1) // length
    run = length * width
    small = scratch(4 * state_size, u).reshape(4, state_size)
    kernel = scratch((COLUMNS - 1) * width + run, u)
    table = scratch(2 * length * state_size, u)
    Y = table[length * state_size :]
    saving = kept.size > 0
    before = kept if saving else scratch((GROUP + ROWS) * state_size, u)
    ub = scratch(GROUP * run, u)
    yb = scratch(GROUP * run, u)
    ends = scratch(GROUP * state_size, u)
    h = scratch(state_size, u)
    for tile in range(first, last_tile):
        # Rows of the same channels follow each other and share the tables.
        row, start = tile % rows, tile // rows * width
        size = min(width, d - start)
        if row == 0 or tile == first:
            _fill(start, size, log_a, w, skip, length, False, table, kernel, small)
        over = small[1]
        _from_pairs(state, row, start, size, n, width, h)
        c = 0
        while c < chunks:
            group = 0
            while group < GROUP and c + group < chunks and _regular(c + group, length, t, row, resets):
                group += 1
            at = (row * t + c * length) * d + start
            base = (tile * chunks + c) * state_size if saving else 0
            if group == 0:
                steps = min(length, t - c * length)
                before[base : base + state_size] = h
                marks = resets[row, c * length : c * length + steps] if resets.size > 0 else resets[0]
                _pack(u, at, d, size, width, steps, ub, 0)
                _steps(small, n, width, steps, marks, ub, h, yb)
                _unpack(yb, 0, d, size, width, steps, y, at)
                c += 1
                continue
            steps = group * length
            _pack(u, at, d, size, width, steps, ub, 0)
            for column in range(0, q, COLUMNS):
                for m in range(0, group, ROWS):
                    tile_product(
                        ub, m * run, run, width, table, column * run, COLUMNS * width, width,
                        ends, (m * q + column) * width, state_size, width, length, False,
                    )  # fmt: skip
            for m in range(group):
                into = base + m * state_size
                for i in range(n):
                    re, im = i * width, (n + i) * width
                    pr, pi, hr, hi = load(over, re), load(over, im), load(h, re), load(h, im)
                    store(before, into + re, hr)
                    store(before, into + im, hi)
                    er, ei = load(ends, m * state_size + re), load(ends, m * state_size + im)
                    store(h, re, nmadd(pi, hi, madd(pr, hr, er)))
                    store(h, im, madd(pi, hr, madd(pr, hi, ei)))
                for i in range(2 * n, q):
                    store(before, into + i * width, load(h, i * width))
            for i in range(0, length, COLUMNS):
                for m in range(0, group, ROWS):
                    tile_product(
                        ub, m * run, run, width, kernel, (COLUMNS - 1 + i) * width, -width, width,
                        yb, m * run + i * width, run, width, i + COLUMNS, False,
                    )  # fmt: skip
                    tile_product(
                        before, base + m * state_size, state_size, width,
                        Y, i * q * width, COLUMNS * width, width,
                        yb, m * run + i * width, run, width, q, True,
                    )  # fmt: skip
            _unpack(yb, 0, d, size, width, steps, y, at)
            c += group
        _to_pairs(h, row, start, size, n, width, last)


@njit(nogil=True, cache=True)
def _steps_back(small, n, width, steps, marks, ub, gb, h, g, past, by_w, by_p, by_skip):
    """A chunk one step at a time in reverse: h enters it, g comes back into its last state and leaves it.

    ``gb`` holds gy and then gu. Adds gy conj(h) to ``by_w``, g conj(h before the step) to ``by_p`` and gy u
    to ``by_skip``; ``past`` is room for the states.
    """
    p, w, skip = small[0], small[2], load(small[3], 0)
    state_size = h.size
    for s in range(steps):
        if marks.size > 0 and marks[s]:
            h[:] = 0
        x, gy = load(ub, s * width), load(gb, s * width)
        store(by_skip, 0, madd(x, gy, load(by_skip, 0)))
        for i in range(n):
            re, im = i * width, (n + i) * width
            pr, pi, hr, hi = load(p, re), load(p, im), load(h, re), load(h, im)
            store(past, s * state_size + re, hr)
            store(past, s * state_size + im, hi)
            nr = nmadd(pi, hi, madd(pr, hr, x))
            ni = madd(pr, hi, mul(pi, hr))
            store(h, re, nr)
            store(h, im, ni)
            store(by_w, re, madd(gy, nr, load(by_w, re)))
            store(by_w, im, nmadd(gy, ni, load(by_w, im)))
    for s in range(steps - 1, -1, -1):
        gy = load(gb, s * width)
        gu = mul(gy, skip)
        for i in range(n):
            re, im = i * width, (n + i) * width
            pr, pi = load(p, re), load(p, im)
            gr = madd(load(w, re), gy, load(g, re))
            gi = nmadd(load(w, im), gy, load(g, im))
            hr, hi = load(past, s * state_size + re), load(past, s * state_size + im)
            store(by_p, re, madd(gr, hr, madd(gi, hi, load(by_p, re))))
            store(by_p, im, madd(gi, hr, nmadd(gr, hi, load(by_p, im))))
            gu = add(gu, gr)
            store(g, re, madd(pr, gr, mul(pi, gi)))
            store(g, im, nmadd(pi, gr, mul(pr, gi)))
        if marks.size > 0 and marks[s]:
            g[:] = 0
        store(gb, s * width, gu)


@njit(nogil=True, cache=True)
def _pull_states(group, n, width, small, kept, base, g, F, F1, E1, G, by_w, by_f, by_e, by_h):
    """From a group's last chunk to its first: what comes back into each (to G), and the sums over chunks.

    F conj(h) to ``by_w``, F1 conj(h) to ``by_f``, g conj(E1) to ``by_e``, g conj(h) to ``by_h``.
    """
    over, w = small[1], small[2]
    state_size = g.size
    for m in range(group - 1, -1, -1):
        o, k = m * state_size, base + m * state_size
        for i in range(2 * n, state_size // width):
            store(G, o + i * width, load(g, i * width))
        for i in range(n):
            re, im = i * width, (n + i) * width
            gr, gi, hr, hi = load(g, re), load(g, im), load(kept, k + re), load(kept, k + im)
            store(G, o + re, gr)
            store(G, o + im, gi)
            store(by_h, re, madd(gr, hr, madd(gi, hi, load(by_h, re))))
            store(by_h, im, madd(gi, hr, nmadd(gr, hi, load(by_h, im))))
            er, ei = load(E1, o + re), load(E1, o + im)
            store(by_e, re, madd(gr, er, madd(gi, ei, load(by_e, re))))
            store(by_e, im, madd(gi, er, nmadd(gr, ei, load(by_e, im))))
            fr, fi = load(F1, o + re), load(F1, o + im)
            store(by_f, re, madd(fr, hr, madd(fi, hi, load(by_f, re))))
            store(by_f, im, madd(fi, hr, nmadd(fr, hi, load(by_f, im))))
            fr, fi = load(F, o + re), load(F, o + im)
            store(by_w, re, madd(fr, hr, madd(fi, hi, load(by_w, re))))
            store(by_w, im, madd(fi, hr, nmadd(fr, hi, load(by_w, im))))
            pr, pi, wr, wi = load(over, re), load(over, im), load(w, re), load(w, im)
            store(g, re, madd(pr, gr, madd(pi, gi, madd(wr, fr, mul(wi, fi)))))
            store(g, im, nmadd(pi, gr, madd(pr, gi, nmadd(wi, fr, mul(wr, fi)))))


@njit(nogil=True, cache=True)
def _gather(row, start, size, n, width, length, table, small, r, sums, g_log_a, g_w):
    """Put the sums of one tile together: gradients of log_a and w for its channels.

    ``sums`` (5, .) holds those of ``_pull_states``, and of g conj(h before) over single steps.
    """
    by_w, by_f, by_e, by_h, by_p = sums[0], sums[1], sums[2], sums[3], sums[4]
    for lane in range(size):
        for i in range(n):
            re, im = i * width + lane, (n + i) * width + lane
            wr, wi, pr, pi = small[2, re], small[2, im], small[0, re], small[0, im]
            lr, li = length * small[1, re], length * small[1, im]
            # Sums over lags of conj(p)^l r_l and l conj(p)^l r_l, from the tables that hold p^l and l p^l.
            ar, ai, br, bi = 0.0, 0.0, 0.0, 0.0
            for lag in range(length):
                at = length - 1 - lag
                o, k = _down(at, i, length, width) + lane, _down(at, n + i, length, width) + lane
                weight = r[lag * width + lane]
                ar += weight * table[0, o]
                ai -= weight * table[0, k]
                br += weight * table[4, o]
                bi -= weight * table[4, k]
            g_w[row, start + lane, i, 0] = by_w[re] + ar
            g_w[row, start + lane, i, 1] = by_w[im] + ai
            br += by_f[re]
            bi += by_f[im]
            g_log_a[row, start + lane, i, 0] = (
                wr * br + wi * bi + by_e[re] + lr * by_h[re] + li * by_h[im] + pr * by_p[re] + pi * by_p[im]
            )
            g_log_a[row, start + lane, i, 1] = (
                wr * bi - wi * br + by_e[im] + lr * by_h[im] - li * by_h[re] + pr * by_p[im] - pi * by_p[re]
            )


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, shape, length, gy, g_last, u, log_a, w, skip, resets, kept,
    gu, g_log_a, g_w, g_skip, g_state,
):  # fmt: skip
    """Tiles [first, last_tile): gradients of u, flat (b t d), and by row of log_a, w, skip and the state."""
    rows, t, d, n = shape
    width = lanes(u)
    q = padded(n)
    state_size = q * width
    chunks = (t + length - 1) // length
    run = length * width
    small = scratch(4 * state_size, u).reshape(4, state_size)
    kernel = scratch((COLUMNS - 1) * width + run, u)
    wide = (length + LAGS) * width  # zeros follow each chunk of gy: correlations run over its end
    table = scratch(6 * length * state_size, u).reshape(6, length * state_size)
    ub = scratch(GROUP * run, u)
    gub = scratch(GROUP * run, u)
    gb = scratch(GROUP * wide, u)
    gb[:] = 0
    F = scratch(GROUP * state_size, u)
    F1 = scratch(GROUP * state_size, u)
    E1 = scratch(GROUP * state_size, u)
    G = scratch(GROUP * state_size, u)
    past = scratch(length * state_size, u)
    h = scratch(state_size, u)
    g = scratch(state_size, u)
    r = scratch(run, u)
    by_skip = scratch(width, u)
    sums = scratch(5 * state_size, u).reshape(5, state_size)
    for tile in range(first, last_tile):
        row, start = tile % rows, tile // rows * width
        size = min(width, d - start)
        if row == 0 or tile == first:
            _fill(start, size, log_a, w, skip, length, True, table.reshape(-1), kernel, small)
        _from_pairs(g_last, row, start, size, n, width, g)
        r[:] = 0
        by_skip[:] = 0
        sums[:] = 0
        c = chunks
        while c > 0:
            group = 0
            while group < GROUP and c - group > 0 and _regular(c - group - 1, length, t, row, resets):
                group += 1
            c -= max(group, 1)
            at = (row * t + c * length) * d + start
            base = (tile * chunks + c) * state_size
            if group == 0:
                steps = min(length, t - c * length)
                marks = resets[row, c * length : c * length + steps] if resets.size > 0 else resets[0]
                h[:] = kept[base : base + state_size]
                _pack(u, at, d, size, width, steps, ub, 0)
                _pack(gy, at, d, size, width, steps, gub, 0)
                _steps_back(small, n, width, steps, marks, ub, gub, h, g, past, sums[0], sums[4], by_skip)
                _unpack(gub, 0, d, size, width, steps, gu, at)
                continue
            _pack(u, at, d, size, width, group * length, ub, 0)
            for m in range(group):
                _pack(gy, at + m * length * d, d, size, width, length, gb, m * wide)
            for column in range(0, q, COLUMNS):
                o = column * run
                for m in range(0, group, ROWS):
                    to = (m * q + column) * width
                    tile_product(
                        gb, m * wide, wide, width, table[2], o, COLUMNS * width, width,
                        F, to, state_size, width, length, False,
                    )  # fmt: skip
                    tile_product(
                        gb, m * wide, wide, width, table[3], o, COLUMNS * width, width,
                        F1, to, state_size, width, length, False,
                    )  # fmt: skip
                    tile_product(
                        ub, m * run, run, width, table[4], o, COLUMNS * width, width,
                        E1, to, state_size, width, length, False,
                    )  # fmt: skip
            _pull_states(
                group, n, width, small, kept, base, g, F, F1, E1, G, sums[0], sums[1], sums[2], sums[3]
            )
            for j in range(0, length, COLUMNS):
                for m in range(0, group, ROWS):
                    to = (m * length + j) * width
                    tile_product(
                        gb, m * wide + j * width, wide, width,
                        kernel, (COLUMNS - 1) * width, width, -width,
                        gub, to, run, width, length - j, False,
                    )  # fmt: skip
                    tile_product(
                        G, m * state_size, state_size, width,
                        table[5], j * q * width, COLUMNS * width, width,
                        gub, to, run, width, q, True,
                    )  # fmt: skip
            _unpack(gub, 0, d, size, width, group * length, gu, at)
            for m in range(group):
                for lag in range(0, length, LAGS):
                    lag_product(
                        gb, m * wide + lag * width, width, width, ub, m * run, width, 0,
                        r, lag * width, width, 0, length - lag, True,
                    )  # fmt: skip
        _to_pairs(g, row, start, size, n, width, g_state)
        _gather(row, start, size, n, width, length, table, small, r, sums, g_log_a, g_w)
        for lane in range(size):
            g_skip[row, start + lane] = r[lane] + by_skip[lane]
