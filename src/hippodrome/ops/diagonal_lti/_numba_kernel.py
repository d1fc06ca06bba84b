# mypy: ignore-errors
"""Numba kernels of the diagonal time-invariant system: a tile is a register's worth of channels and its rows.

One channel is one lane of a vector, so in the layout (b, t, d) nothing is transposed and nothing is summed
across lanes. Time inside a tile is cut into chunks of L steps; everything that costs is one small matrix
product, ``tile_product``, whose accumulators stay in registers: it is written in LLVM's own terms, because
loops over constant-size arrays are not promoted to registers. All products read one table, T_m = p^m for
m < L, made once for all rows of a tile; what else a formula asks of a power goes into the other factor.

With p = exp(log_a), h the state that enters a chunk and g the gradient that comes back into its last state:

    forward   y_i  = sum_{j<=i} k_{i-j} u_j + Re T_i (w p h)          k_l = Re sum_n w p^l (+ skip at l = 0)
              h'   = p^L h + E,               E  = sum_j T_{L-1-j} u_j
    backward  gu_j = sum_{i>=j} k_{i-j} gy_i + Re conj(T_{L-1-j}) g
              g'   = conj(p^L g^* + w p F),   F  = sum_i T_i gy_i
              gw  += conj(p F h),             r_l += sum_j gy_{j+l} u_j
              ga  += conj(w p (F + F1) h) + g conj(E1 + L p^L h)

with F1 = sum_i i T_i gy_i, E1 = sum_j (L-1-j) T_{L-1-j} u_j and g^* = conj(g); at the end, once for the sum
over all rows, gw += sum_l conj(p)^l r_l, ga += conj(w) sum_l l conj(p)^l r_l, gskip = r_0. A chunk that holds
a reset, or is shorter than L, runs one step at a time instead.

What ``backward`` adds up it leaves row by row in ``parts``; ``finish`` adds the rows in their order, so that
a result does not depend on how rows and channels were shared among threads.
"""

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from hippodrome.ops._lanes_kernel import _number, _read, _rounded, _stored, get, prefetch, put

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
    vector = _stored(context, array_type, BYTES * 8 // _number(array_type).bitwidth)
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _align(context, array_type):
    # Rows of the caller's tensors may start anywhere.
    return context.get_abi_sizeof(context.get_value_type(array_type.dtype))


@intrinsic
def load(typingctx, array, offset):
    """The register that starts at element ``offset`` of a flat array, which may be bfloat16."""

    def codegen(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        value.align = _align(context, signature.args[0])
        return _read(builder, array, value)

    return Vector(_number(array))(array, types.intp), codegen


@intrinsic
def narrow(typingctx, array, offset, value):
    """Write a register of float64 at element ``offset`` of a flat array, in that array's type."""

    def codegen(context, builder, signature, arguments):
        array_type = signature.args[0]
        element = context.get_value_type(array_type.dtype)
        vector = ir.VectorType(element, arguments[2].type.count)
        kept = arguments[2] if arguments[2].type == vector else builder.fptrunc(arguments[2], vector)
        data = cgutils.create_struct_proxy(array_type)(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer())
        builder.store(kept, place).align = _align(context, array_type)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def store(typingctx, array, offset, value):
    """Write a register at element ``offset`` of a flat array, which may be bfloat16."""

    def codegen(context, builder, signature, arguments):
        value = _rounded(builder, array, arguments[2])
        kept = builder.store(value, _pointer(context, builder, signature.args[0], *arguments[:2]))
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
def tile_of(tile, splits, shape, width):
    """(block of channels, first channel, channels, first row, behind the last row) of a tile."""
    rows, _, d, _ = shape
    block, split = tile // splits, tile % splits
    start = block * width
    return block, start, min(width, d - start), rows * split // splits, rows * (split + 1) // splits


@njit(nogil=True, cache=True)
def _poles(start, size, log_a, w, width, p, weight):
    """p = exp(log_a) and w of the channels [start, start + size) in float64, real parts then imaginary."""
    n = log_a.shape[1]
    p[:] = 0
    weight[:] = 0
    for lane in range(size):
        for i in range(n):
            re, im = i * width + lane, (n + i) * width + lane
            radius = np.exp(np.float64(log_a[start + lane, i, 0]))
            angle = np.float64(log_a[start + lane, i, 1])
            p[re], p[im] = radius * np.cos(angle), radius * np.sin(angle)
            weight[re], weight[im] = w[start + lane, i, 0], w[start + lane, i, 1]


@njit(nogil=True, cache=True)
def _fill(start, size, log_a, w, skip, length, table, kernel, small):
    """Tables of the channels [start, start + size), powers taken in float64.

    ``table`` (padded(n), L + 1 lanes) takes T, a column's powers behind each other and a register free, so
    that no two columns lie a power of two apart; ``kernel`` ((COLUMNS - 1 + L) lanes) k after zeros;
    ``small`` (6, padded(n) lanes) p, p^L, w, the skip, w p and L p^L. A complex number is its real part in
    column i and its imaginary part in column n + i.
    """
    n = log_a.shape[1]
    width = lanes(table)
    stride = (length + 1) * width
    p, weight = scratch(2 * n * width, np.empty(0)), scratch(2 * n * width, np.empty(0))
    ones, zeros, k = np.ones(lanes(p)), np.zeros(lanes(p)), np.zeros(length * width)
    small[:] = 0
    table[2 * n * stride :] = 0
    _poles(start, size, log_a, w, width, p, weight)
    for i in range(n):
        for part in range(0, width, lanes(p)):
            re, im = i * width + part, (n + i) * width + part
            pr, pi, wr, wi = load(p, re), load(p, im), load(weight, re), load(weight, im)
            narrow(small[0], re, pr)
            narrow(small[0], im, pi)
            narrow(small[2], re, wr)
            narrow(small[2], im, wi)
            narrow(small[4], re, nmadd(wi, pi, mul(wr, pr)))
            narrow(small[4], im, madd(wi, pr, mul(wr, pi)))
            tr, ti = load(ones, 0), load(zeros, 0)  # p^0, in channels past the last too: w is zero there
            for m in range(length):
                o = m * width + part
                narrow(table, i * stride + o, tr)
                narrow(table, (n + i) * stride + o, ti)
                store(k, o, madd(wr, tr, nmadd(wi, ti, load(k, o))))
                nr = nmadd(pi, ti, mul(pr, tr))
                ti = madd(pi, tr, mul(pr, ti))
                tr = nr
            narrow(small[1], re, tr)
            narrow(small[1], im, ti)
    for lane in range(2 * n * width):
        small[5, lane] = length * small[1, lane]
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
                into[o + s * width + lane] = get(source, at + s * d + lane) if lane < size else 0


@njit(nogil=True, cache=True)
def _unpack(buffer, o, d, size, width, steps, target, at):
    """The way back."""
    for s in range(steps):
        if size == width:
            store(target, at + s * d, load(buffer, o + s * width))
        else:
            for lane in range(size):
                put(target, at + s * d + lane, buffer[o + s * width + lane])


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
def _ask(array, at, d, steps, write):
    """Ask for the cache lines of ``steps`` rows, d apart from element ``at`` on."""
    for s in range(steps):
        prefetch(array, at + s * d, write)


@njit(nogil=True, cache=True)
def _push_states(group, n, width, small, ends, h, before, base, saving, Z):
    """From a group's first chunk to its last: what enters each (to ``before``), and w p times that (to Z)."""
    over, weighted, zero = small[1], small[4], load(small[3], width)
    state_size = h.size
    for i in range(n):
        re, im = i * width, (n + i) * width
        pr, pi, wr, wi = load(over, re), load(over, im), load(weighted, re), load(weighted, im)
        hr, hi = load(h, re), load(h, im)
        for m in range(group):
            o = m * state_size
            if saving:
                store(before, base + o + re, hr)
                store(before, base + o + im, hi)
            store(Z, o + re, nmadd(wi, hi, mul(wr, hr)))
            store(Z, o + im, nmadd(wi, hr, nmadd(wr, hi, zero)))
            nr = nmadd(pi, hi, madd(pr, hr, load(ends, o + re)))
            hi = madd(pi, hr, madd(pr, hi, load(ends, o + im)))
            hr = nr
        store(h, re, hr)
        store(h, im, hi)
    for i in range(2 * n * width, state_size):
        for m in range(group):
            Z[m * state_size + i] = 0
            if saving:
                before[base + m * state_size + i] = 0


@njit(nogil=True, cache=True)
def forward(
    first, last_tile, splits, shape, length, u, log_a, w, skip, state, resets, y, last, kept
):  # fmt: skip
    """Tiles [first, last_tile) of u and y, flat (b t d); ``kept`` takes the state that enters each chunk.

    ``kept`` is flat (blocks of channels, rows, chunks, padded(n) lanes), or empty.
    """
    rows, t, d, n = shape
    width = lanes(log_a)
    q = padded(n)
    state_size = q * width
    chunks = (t + length - 1) // length
    run = length * width
    stride = run + width
    small = scratch(6 * state_size, log_a).reshape(6, state_size)
    kernel = scratch((COLUMNS - 1) * width + run, log_a)
    table = scratch(q * stride, log_a)
    saving = kept.size > 0
    # Products run over whole tiles of rows: what lies behind the last chunk is read, and must be a number.
    ub = scratch(GROUP * run, log_a)
    ub[:] = 0
    yb = scratch(GROUP * run, log_a)
    ends = scratch(GROUP * state_size, log_a)
    Z = scratch(GROUP * state_size, log_a)
    Z[:] = 0
    h = scratch(state_size, log_a)
    ahead = GROUP * length * COLUMNS // q
    for tile in range(first, last_tile):
        block, start, size, row, behind = tile_of(tile, splits, shape, width)
        _fill(start, size, log_a, w, skip, length, table, kernel, small)
        while row < behind:
            _from_pairs(state, row, start, size, n, width, h)
            c = 0
            while c < chunks:
                group = 0
                while group < GROUP and c + group < chunks and _regular(c + group, length, t, row, resets):
                    group += 1
                at = (row * t + c * length) * d + start
                base = ((block * rows + row) * chunks + c) * state_size if saving else 0
                if group == 0:
                    steps = min(length, t - c * length)
                    if saving:
                        kept[base : base + state_size] = h
                    marks = resets[row, c * length : c * length + steps] if resets.size > 0 else resets[0]
                    _pack(u, at, d, size, width, steps, ub, 0)
                    _steps(small, n, width, steps, marks, ub, h, yb)
                    _unpack(yb, 0, d, size, width, steps, y, at)
                    c += 1
                    continue
                steps = group * length
                _pack(u, at, d, size, width, steps, ub, 0)
                for column in range(0, q, COLUMNS):
                    # Meanwhile what is written next, and what is read next, comes nearer.
                    done = column // COLUMNS * ahead
                    _ask(y, at + done * d, d, ahead, 1)
                    _ask(u, at + (steps + done) * d, d, ahead, 0)
                    if saving:
                        for m in range(group):
                            _ask(kept, base + m * state_size + column * width, width, COLUMNS, 1)
                    for m in range(0, group, ROWS):
                        tile_product(
                            ub, m * run, run, width, table, column * stride + run - width, -width, stride,
                            ends, m * state_size + column * width, state_size, width, length, False,
                        )  # fmt: skip
                _push_states(group, n, width, small, ends, h, kept, base, saving, Z)
                for i in range(0, length, COLUMNS):
                    for m in range(0, group, ROWS):
                        tile_product(
                            ub, m * run, run, width, kernel, (COLUMNS - 1 + i) * width, -width, width,
                            yb, m * run + i * width, run, width, i + COLUMNS, False,
                        )  # fmt: skip
                        tile_product(
                            Z, m * state_size, state_size, width, table, i * width, stride, width,
                            yb, m * run + i * width, run, width, q, True,
                        )  # fmt: skip
                _unpack(yb, 0, d, size, width, steps, y, at)
                c += group
            _to_pairs(h, row, start, size, n, width, last)
            row += 1


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
def _pull_states(group, n, width, small, kept, base, g, F, F1, E1, G, by_w, by_f, by_a):
    """From a group's last chunk to its first: what comes back into each (to G), and the sums over chunks.

    F h to ``by_w``, F1 h to ``by_f``, g conj(E1 + L p^L h) to ``by_a``.
    """
    over, weighted, late = small[1], small[4], small[5]
    state_size = g.size
    for i in range(n):
        re, im = i * width, (n + i) * width
        pr, pi, wr, wi = load(over, re), load(over, im), load(weighted, re), load(weighted, im)
        lr, li, gr, gi = load(late, re), load(late, im), load(g, re), load(g, im)
        ar, ai, br, bi = load(by_a, re), load(by_a, im), load(by_w, re), load(by_w, im)
        cr, ci = load(by_f, re), load(by_f, im)
        for m in range(group - 1, -1, -1):
            o, k = m * state_size, base + m * state_size
            store(G, o + re, gr)
            store(G, o + im, gi)
            hr, hi = load(kept, k + re), load(kept, k + im)
            er = nmadd(li, hi, madd(lr, hr, load(E1, o + re)))
            ei = madd(li, hr, madd(lr, hi, load(E1, o + im)))
            ar = madd(gr, er, madd(gi, ei, ar))
            ai = madd(gi, er, nmadd(gr, ei, ai))
            fr, fi = load(F1, o + re), load(F1, o + im)
            cr = nmadd(fi, hi, madd(fr, hr, cr))
            ci = madd(fi, hr, madd(fr, hi, ci))
            fr, fi = load(F, o + re), load(F, o + im)
            br = nmadd(fi, hi, madd(fr, hr, br))
            bi = madd(fi, hr, madd(fr, hi, bi))
            nr = nmadd(wi, fi, madd(wr, fr, madd(pr, gr, mul(pi, gi))))
            gi = nmadd(wi, fr, nmadd(wr, fi, nmadd(pi, gr, mul(pr, gi))))
            gr = nr
        store(g, re, gr)
        store(g, im, gi)
        store(by_a, re, ar)
        store(by_a, im, ai)
        store(by_w, re, br)
        store(by_w, im, bi)
        store(by_f, re, cr)
        store(by_f, im, ci)


@njit(nogil=True, cache=True)
def _scale(source, at, ramp, from_, by, width, steps, into, o):
    """Registers of ``source`` times those of ``ramp`` from element ``from_`` on, ``by`` apart."""
    for s in range(steps):
        store(into, o + s * width, mul(load(ramp, from_ + s * by), load(source, at + s * width)))


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, splits, shape, length, gy, g_last, u, log_a, w, skip, resets, kept, gu, g_state, parts
):  # fmt: skip
    """Tiles [first, last_tile): gradients of u, flat (b t d), and of the state; sums for ``finish``.

    ``parts`` is flat (blocks of channels, rows, 2 padded(n) + L + 1 lanes): of each row the gradients of w
    and of log_a short of what goes through r, then r, then what single steps add to the gradient of the skip.
    """
    rows, t, d, n = shape
    width = lanes(log_a)
    q = padded(n)
    state_size = q * width
    chunks = (t + length - 1) // length
    run = length * width
    stride = run + width
    small = scratch(6 * state_size, log_a).reshape(6, state_size)
    kernel = scratch((COLUMNS - 1) * width + run, log_a)
    wide = (length + LAGS) * width  # zeros follow each chunk of gy: correlations run over its end
    table = scratch(q * stride, log_a)
    ub, us, gs = scratch(GROUP * run, log_a), scratch(GROUP * run, log_a), scratch(GROUP * run, log_a)
    gb, gub = scratch(GROUP * wide, log_a), scratch(GROUP * run, log_a)
    F, F1 = scratch(GROUP * state_size, log_a), scratch(GROUP * state_size, log_a)
    E1, G = scratch(GROUP * state_size, log_a), scratch(GROUP * state_size, log_a)
    # Products run over whole tiles of rows: what lies behind the last chunk is read, and must be a number.
    us[:], gs[:], gb[:], G[:] = 0, 0, 0, 0
    past = scratch(length * state_size, log_a)
    h, g = scratch(state_size, log_a), scratch(state_size, log_a)
    sums = scratch(5 * state_size, log_a).reshape(5, state_size)
    ramp = scratch(run, log_a)
    for s in range(run):
        ramp[s] = s // width
    part = 2 * state_size + run + width
    ahead = GROUP * length * COLUMNS // q
    for tile in range(first, last_tile):
        block, start, size, first_row, row = tile_of(tile, splits, shape, width)
        _fill(start, size, log_a, w, skip, length, table, kernel, small)
        while row > first_row:
            row -= 1
            own = parts[(block * rows + row) * part : (block * rows + row + 1) * part]
            r, by_skip = own[2 * state_size : part - width], own[part - width :]
            _from_pairs(g_last, row, start, size, n, width, g)
            own[:] = 0
            sums[:] = 0
            c = chunks
            while c > 0:
                group = 0
                while group < GROUP and c - group > 0 and _regular(c - group - 1, length, t, row, resets):
                    group += 1
                c -= max(group, 1)
                at = (row * t + c * length) * d + start
                base = ((block * rows + row) * chunks + c) * state_size
                if group == 0:
                    steps = min(length, t - c * length)
                    marks = resets[row, c * length : c * length + steps] if resets.size > 0 else resets[0]
                    h[:] = kept[base : base + state_size]
                    _pack(u, at, d, size, width, steps, ub, 0)
                    _pack(gy, at, d, size, width, steps, gub, 0)
                    _steps_back(small, n, width, steps, marks, ub, gub, h, g, past, sums[3], sums[4], by_skip)
                    _unpack(gub, 0, d, size, width, steps, gu, at)
                    continue
                steps = group * length
                _pack(u, at, d, size, width, steps, ub, 0)
                for m in range(group):
                    _pack(gy, at + m * length * d, d, size, width, length, gb, m * wide)
                    _scale(gb, m * wide, ramp, 0, width, width, length, gs, m * run)
                    _scale(ub, m * run, ramp, run - width, -width, width, length, us, m * run)
                for column in range(0, q, COLUMNS):
                    # Meanwhile what is written next, and what is read next, comes nearer.
                    done = column // COLUMNS * ahead
                    _ask(gu, at + done * d, d, ahead, 1)
                    _ask(u, at - (GROUP * length - done) * d, d, ahead, 0)
                    _ask(gy, at - (GROUP * length - done) * d, d, ahead, 0)
                    o = column * stride
                    for m in range(0, group, ROWS):
                        to = m * state_size + column * width
                        tile_product(
                            gb, m * wide, wide, width, table, o, width, stride,
                            F, to, state_size, width, length, False,
                        )  # fmt: skip
                        tile_product(
                            gs, m * run, run, width, table, o, width, stride,
                            F1, to, state_size, width, length, False,
                        )  # fmt: skip
                        tile_product(
                            us, m * run, run, width, table, o + run - width, -width, stride,
                            E1, to, state_size, width, length, False,
                        )  # fmt: skip
                _pull_states(group, n, width, small, kept, base, g, F, F1, E1, G, sums[0], sums[1], sums[2])
                for j in range(0, length, COLUMNS):
                    for m in range(0, group, ROWS):
                        to = m * run + j * width
                        tile_product(
                            gb, m * wide + j * width, wide, width,
                            kernel, (COLUMNS - 1) * width, width, -width,
                            gub, to, run, width, length - j, False,
                        )  # fmt: skip
                        tile_product(
                            G, m * state_size, state_size, width,
                            table, run - width - j * width, stride, -width,
                            gub, to, run, width, q, True,
                        )  # fmt: skip
                _unpack(gub, 0, d, size, width, steps, gu, at)
                for m in range(group):
                    for lag in range(0, length, LAGS):
                        lag_product(
                            gb, m * wide + lag * width, width, width, ub, m * run, width, 0,
                            r, lag * width, width, 0, length - lag, True,
                        )  # fmt: skip
            _to_pairs(g, row, start, size, n, width, g_state)
            _close_row(n, width, small, sums, own, own[state_size:])


@njit(nogil=True, cache=True)
def _close_row(n, width, small, sums, g_w, g_a):
    """What the sums over one row's chunks and single steps say about w and log_a."""
    p, weighted = small[0], small[4]
    by_w, by_f, by_a, one_w, one_p = sums[0], sums[1], sums[2], sums[3], sums[4]
    for i in range(n):
        re, im = i * width, (n + i) * width
        pr, pi, sr, si = load(p, re), load(p, im), load(by_w, re), load(by_w, im)
        store(g_w, re, nmadd(pi, si, madd(pr, sr, load(one_w, re))))
        store(g_w, im, nmadd(pi, sr, nmadd(pr, si, load(one_w, im))))
        sr, si = add(sr, load(by_f, re)), add(si, load(by_f, im))
        wr, wi, qr, qi = load(weighted, re), load(weighted, im), load(one_p, re), load(one_p, im)
        store(g_a, re, madd(pr, qr, madd(pi, qi, nmadd(wi, si, madd(wr, sr, load(by_a, re))))))
        store(g_a, im, madd(pr, qi, nmadd(pi, qr, nmadd(wi, sr, nmadd(wr, si, load(by_a, im))))))


@njit(nogil=True, cache=True)
def finish(first, last_block, shape, length, log_a, w, parts, g_log_a, g_w, g_skip):
    """Blocks of channels [first, last_block): the rows' sums added in order, and r through the powers."""
    rows, _, d, n = shape
    width = lanes(parts)
    state_size = padded(n) * width
    run = length * width
    part = 2 * state_size + run + width
    total = scratch(part, parts)
    p, weight = scratch(2 * n * width, np.empty(0)), scratch(2 * n * width, np.empty(0))
    r = scratch(run, np.empty(0))
    sums = scratch(4 * n * width, np.empty(0)).reshape(4, n * width)
    zero = np.zeros(lanes(p))
    for block in range(first, last_block):
        start = block * width
        size = min(width, d - start)
        total[:] = 0
        for row in range(rows):
            at = (block * rows + row) * part
            for o in range(0, part, width):
                store(total, o, add(load(total, o), load(parts, at + o)))
        r[:] = total[2 * state_size : 2 * state_size + run]
        _poles(start, size, log_a, w, width, p, weight)
        for i in range(n):
            for half in range(0, width, lanes(p)):
                re, im = i * width + half, (n + i) * width + half
                pr, pi, ar = load(p, re), load(p, im), load(zero, 0)
                ai, br, bi = ar, ar, ar
                # Horner's rule from the last lag on: a = sum_l r_l p^l, b = p a'(p) = sum_l l r_l p^l.
                for lag in range(length - 1, -1, -1):
                    nr = nmadd(pi, bi, madd(pr, br, nmadd(pi, ai, mul(pr, ar))))
                    bi = madd(pi, br, madd(pr, bi, madd(pi, ar, mul(pr, ai))))
                    br = nr
                    nr = nmadd(pi, ai, madd(pr, ar, load(r, lag * width + half)))
                    ai = madd(pi, ar, mul(pr, ai))
                    ar = nr
                store(sums[0], re, ar)
                store(sums[1], re, ai)
                store(sums[2], re, br)
                store(sums[3], re, bi)
        for lane in range(size):
            for i in range(n):
                re, im = i * width + lane, (n + i) * width + lane
                wr, wi, br, bi = weight[re], weight[im], sums[2, re], sums[3, re]
                g_w[start + lane, i, 0] = total[re] + sums[0, re]
                g_w[start + lane, i, 1] = total[im] - sums[1, re]
                g_log_a[start + lane, i, 0] = total[state_size + re] + (wr * br - wi * bi)
                g_log_a[start + lane, i, 1] = total[state_size + im] - (wr * bi + wi * br)
            g_skip[start + lane] = total[2 * state_size + lane] + total[part - width + lane]
