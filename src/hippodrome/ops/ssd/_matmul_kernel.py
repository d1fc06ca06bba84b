"""A small matrix product for Numba kernels: C += A B on pieces of flat arrays, held in vector registers.

BLAS on products this small (64 by 128 and the like) runs at half of the machine's rate or less, and every
product would write its result to memory before the next step scales or masks it. Here a tile of C stays in
registers while k runs, and the caller works on chunks that stay in cache.

All arrays are one-dimensional and contiguous; a matrix is an offset and strides into one. A may have any two
strides (so it may be transposed); rows of B and C are contiguous, their length n a multiple of the lanes of a
vector register.
"""

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

FAST = {"contract", "reassoc", "nsz", "arcp"}


def _registers():
    """Bytes of a vector register and rows of a tile, such that all fit the register file."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    if features.get("avx2") or features.get("avx"):
        return 32, 4
    return 16, 4


BYTES, ROWS = _registers()


def _tile(rows, vectors):
    """A Numba intrinsic that adds A B to a tile of C, ``rows`` by ``vectors`` registers, over k steps."""

    @intrinsic
    def tile(typingctx, c, oc, ldc, a, oa, ra, ka, b, ob, ldb, k):
        i = types.intp
        signature = types.void(c, i, i, a, i, i, i, b, i, i, i)

        def codegen(context, builder, signature, arguments):
            element = context.get_value_type(signature.args[0].dtype)
            size = signature.args[0].dtype.bitwidth // 8
            lanes = BYTES // size
            vector = ir.VectorType(element, lanes)
            integer, short = ir.IntType(64), ir.IntType(32)

            def pointer(position):
                array = context.make_array(signature.args[position])
                return array(context, builder, arguments[position]).data

            def register(base, offset):
                return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

            c, a, b = pointer(0), pointer(3), pointer(7)
            oc, ldc, oa, ra, ka, ob, ldb, k = (arguments[j] for j in (1, 2, 4, 5, 6, 8, 9, 10))
            places = [
                builder.add(oc, builder.add(builder.mul(ldc, integer(r)), integer(v * lanes)))
                for r in range(rows)
                for v in range(vectors)
            ]
            before = [builder.load(register(c, place), align=size) for place in places]
            entry = builder.block
            body = builder.append_basic_block("k")
            leave = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", k, integer(0)), body, leave)

            builder.position_at_end(body)
            step, at_a, at_b = builder.phi(integer), builder.phi(integer), builder.phi(integer)
            sums = [builder.phi(vector) for _ in before]
            starts = zip([step, at_a, at_b, *sums], [integer(0), oa, ob, *before], strict=True)
            for phi, start in starts:
                phi.add_incoming(start, entry)
            row = [
                builder.load(register(b, builder.add(at_b, integer(v * lanes))), align=size)
                for v in range(vectors)
            ]
            nothing = ir.Constant(vector, ir.Undefined)
            first_lane = ir.Constant(ir.VectorType(short, lanes), [0] * lanes)
            after = []
            for r in range(rows):
                scalar = builder.load(builder.gep(a, [builder.add(at_a, builder.mul(ra, integer(r)))]))
                single = builder.insert_element(nothing, scalar, short(0))
                broadcast = builder.shuffle_vector(single, nothing, first_lane)
                for v in range(vectors):
                    product = builder.fmul(broadcast, row[v], flags=("contract",))
                    after.append(builder.fadd(product, sums[r * vectors + v], flags=("contract",)))
            following = builder.add(step, integer(1))
            ends = [following, builder.add(at_a, ka), builder.add(at_b, ldb), *after]
            for phi, end in zip([step, at_a, at_b, *sums], ends, strict=True):
                phi.add_incoming(end, body)
            builder.cbranch(builder.icmp_signed("<", following, k), body, leave)

            builder.position_at_end(leave)
            results = [builder.phi(vector) for _ in before]
            for phi, start, end in zip(results, before, after, strict=True):
                phi.add_incoming(start, entry)
                phi.add_incoming(end, body)
            for place, result in zip(places, results, strict=True):
                builder.store(result, register(c, place), align=size)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_tile_full = _tile(ROWS, 2)
_tile_narrow = _tile(ROWS, 1)
_row_full = _tile(1, 2)
_row_narrow = _tile(1, 1)


@njit(nogil=True, cache=True, fastmath=FAST)
def add_product(c, oc, ldc, a, oa, ra, ka, b, ob, ldb, m, n, k):
    """C[i, j] += sum_l A[i, l] B[l, j] for m rows and n columns (whole registers), l below k.

    C[i, j] lies at ``oc + i ldc + j``, A[i, l] at ``oa + i ra + l ka``, B[l, j] at ``ob + l ldb + j``.
    """
    lanes = BYTES // c.itemsize
    for j in range(0, n, 2 * lanes):
        wide = n - j >= 2 * lanes
        i = 0
        while i + ROWS <= m:
            if wide:
                _tile_full(c, oc + i * ldc + j, ldc, a, oa + i * ra, ra, ka, b, ob + j, ldb, k)
            else:
                _tile_narrow(c, oc + i * ldc + j, ldc, a, oa + i * ra, ra, ka, b, ob + j, ldb, k)
            i += ROWS
        while i < m:
            if wide:
                _row_full(c, oc + i * ldc + j, ldc, a, oa + i * ra, ra, ka, b, ob + j, ldb, k)
            else:
                _row_narrow(c, oc + i * ldc + j, ldc, a, oa + i * ra, ra, ka, b, ob + j, ldb, k)
            i += 1
