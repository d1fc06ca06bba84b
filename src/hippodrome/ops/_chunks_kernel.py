"""What the Numba kernels of matrix states share: sixteen tokens of one head at a time as small matrices.

A chunk is LANES tokens. Its queries, keys and values lie in scratch as rows of whole vectors, zeros behind
the last channel and below the last token, so that nothing after the fetching asks for a size. Rows become
columns by ``turn``, and all large products go through ``add_product``, which keeps its tile in registers.
"""

from llvmlite import ir
from numba import njit, types

from hippodrome.ops._lanes_kernel import LANES, intrinsic, load, load_some, prefetch, store, store_some, zeros
from hippodrome.ops.ssd._matmul_kernel import ROWS, add_product


@intrinsic
def turn(typingctx, source, at, pitch, target, to, step):
    """Write sixteen rows, ``pitch`` apart, as sixteen columns: row i goes to lane i of each row."""

    def generate(context, builder, sig, args):
        vector = ir.VectorType(context.get_value_type(source.dtype), LANES)
        size = source.dtype.bitwidth // 8
        count = ir.IntType(64)
        places = [context.cast(builder, args[j], sig.args[j], types.intp) for j in (1, 2, 4, 5)]

        def pointer(array, kind, first, apart, i):
            data = context.make_array(kind)(context, builder, array).data
            index = builder.add(first, builder.mul(apart, count(i)))
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        rows = [
            builder.load(pointer(args[0], sig.args[0], places[0], places[1], i), align=size)
            for i in range(LANES)
        ]
        half = LANES // 2
        while half:
            after = list(rows)
            for i in range(LANES):
                if not i & half:
                    low, high = rows[i], rows[i + half]
                    for j, shift in ((i, 0), (i + half, half)):
                        lanes = [
                            x + shift if not x & half else LANES + x - half + shift for x in range(LANES)
                        ]
                        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
                        after[j] = builder.shuffle_vector(low, high, mask)
            rows, half = after, half // 2
        for i, row in enumerate(rows):
            builder.store(row, pointer(args[3], sig.args[3], places[2], places[3], i), align=size)
        return context.get_dummy_value()

    return types.void(source, at, pitch, target, to, step), generate


@njit(nogil=True, cache=True)
def padded(size):
    """A size rounded up to whole vectors."""
    return (size + LANES - 1) // LANES * LANES


@njit(nogil=True, cache=True)
def fetch(x, at, pitch, steps, size, target, ahead):
    """Rows of ``size`` numbers, ``pitch`` apart, into sixteen padded rows; those from ``steps`` on are zero.

    The rows ``ahead`` of these, of the chunk that comes next, are asked for meanwhile.
    """
    width = padded(size)
    for i in range(LANES):
        for c in range(0, width, LANES):
            prefetch(x, at + (ahead + i) * pitch + c, 0)
            row = load_some(x, at + i * pitch + c, size - c) if i < steps else zeros(x)
            store(target, i * width + c, row)


@njit(nogil=True, cache=True)
def send(source, steps, size, x, at, pitch, ahead):
    """The way back of ``fetch``."""
    width = padded(size)
    for i in range(steps):
        for c in range(0, width, LANES):
            prefetch(x, at + (ahead + i) * pitch + c, 1)
            store_some(x, at + i * pitch + c, size - c, load(source, i * width + c))


@njit(nogil=True, cache=True)
def fetch_matrix(x, at, rows, columns, target):
    """A dense matrix into one with padded rows and columns."""
    width = padded(columns)
    for i in range(padded(rows)):
        for c in range(0, width, LANES):
            row = load_some(x, at + i * columns + c, columns - c) if i < rows else zeros(x)
            store(target, i * width + c, row)


@njit(nogil=True, cache=True)
def send_matrix(source, rows, columns, x, at):
    """The way back of ``fetch_matrix``."""
    width = padded(columns)
    for i in range(rows):
        for c in range(0, width, LANES):
            store_some(x, at + i * columns + c, columns - c, load(source, i * width + c))


@njit(nogil=True, cache=True)
def flip(source, width, target, to, pitch):
    """Sixteen rows of ``width`` as ``width`` rows of sixteen, ``pitch`` apart from ``to`` on."""
    for c in range(0, width, LANES):
        turn(source, c, width, target, to + c * pitch, pitch)


@njit(nogil=True, cache=True)
def unflip(source, at, pitch, width, target):
    """The way back of ``flip``."""
    for c in range(0, width, LANES):
        turn(source, at + c * pitch, pitch, target, c, width)


@njit(nogil=True, cache=True)
def clear(target, count):
    """Zeros in the first ``count`` elements."""
    for i in range(0, count, LANES):
        store(target, i, zeros(target))


@njit(nogil=True, cache=True)
def add_lower(out, width, weights, rows):
    """out[i] += sum over j <= i of weights[i, j] rows[j], the sixteen by sixteen weights zero above."""
    for i in range(0, LANES, ROWS):
        add_product(
            out, i * width, width, weights, i * LANES, LANES, 1, rows, 0, width, ROWS, width, i + ROWS
        )


@njit(nogil=True, cache=True)
def add_lower_turned(out, width, weights, rows):
    """out[j] += sum over i >= j of weights[i, j] rows[i], the sixteen by sixteen weights zero above."""
    for j in range(0, LANES, ROWS):
        at = j * LANES + j
        add_product(
            out, j * width, width, weights, at, 1, LANES, rows, j * width, width, ROWS, width, LANES - j
        )
