"""Cosine and sine of sixteen numbers at once, for Numba kernels: a complex exponential needs both.

The nearest multiple n of pi/2 is taken off in three pieces (Cody, Waite 1980), of which the first two are so
short that n times them is exact: for sizes up to 1e4 in float32 and 1e6 in float64 the rest is off by
rounding alone, its own and that of n times the third piece. On it, at most pi/4 in size, run two polynomials;
n modulo 4 says which is the sine, and the signs. Larger arguments lose accuracy; infinities and NaN give NaN.
"""

from llvmlite import ir
from numba import types

from hippodrome.ops._lanes_kernel import FLAGS, LANES, _constant, _polynomial, intrinsic

# A product and a difference may become one operation, but the differences must be taken in order.
_IN_ORDER = ("contract",)
_TURNS = 0.636619772367581343
_PIECES = {
    32: (1.5703125, 0.0004837512969970703, 7.549789954891882e-08),
    64: (1.5707963267341256, 6.07710050359346e-11, 2.912732056093356e-20),
}
# sin r = r + r w s(w) and cos r = 1 - w/2 + w^2 c(w) for w = r^2, interpolated at Chebyshev nodes: off by
# 1e-8 and 2e-19 at most, and exact at r = 0.
_SINE = {
    32: (-0.166666646617146985, 0.00833274815408503215, -0.000195878657021018751),
    64: (
        -0.166666666666666667,
        0.00833333333333333149,
        -0.000198412698412650626,
        2.75573192193373103e-6,
        -2.50521062318028379e-8,
        1.60585315167977592e-10,
        -7.58669109419795836e-13,
    ),
}
_COSINE = {
    32: (0.0416666646589014037, -0.00138883029191136328, 0.0000245479168536910169),
    64: (
        0.0416666666666666667,
        -0.00138888888888888879,
        0.0000248015873015846451,
        -2.75573192214017924e-7,
        2.08767557907219636e-9,
        -1.14704608307953041e-11,
        4.7458685530816658e-14,
    ),
}


@intrinsic
def wave(typingctx, value):
    """Cosine and sine of each lane."""
    bits = value.dtype.bitwidth
    # Adding 1.5 * 2^mantissa leaves the nearest integer in the low bits; the additions must not be folded.
    magic = 1.5 * 2.0 ** (23 if bits == 32 else 52)
    both = types.UniTuple(value, 2)

    def generate(context, builder, sig, args):
        x = args[0]
        vector, integer = x.type, ir.VectorType(ir.IntType(bits), LANES)
        shifted = builder.fadd(builder.fmul(x, _constant(vector, _TURNS)), _constant(vector, magic))
        n = builder.fsub(shifted, _constant(vector, magic))
        r = x
        for piece in _PIECES[bits]:
            taken = builder.fmul(n, _constant(vector, piece), flags=_IN_ORDER)
            r = builder.fsub(r, taken, flags=_IN_ORDER)
        w = builder.fmul(r, r, flags=FLAGS)
        s = builder.fmul(_polynomial(builder, w, _SINE[bits]), w, flags=FLAGS)
        s = builder.fadd(builder.fmul(s, r, flags=FLAGS), r, flags=FLAGS)
        c = builder.fmul(_polynomial(builder, w, _COSINE[bits]), w, flags=FLAGS)
        c = builder.fmul(builder.fsub(c, _constant(vector, 0.5), flags=FLAGS), w, flags=FLAGS)
        c = builder.fadd(c, _constant(vector, 1.0), flags=FLAGS)
        quarter = builder.bitcast(shifted, integer)
        one, two = _constant(integer, 1), _constant(integer, 2)
        even = builder.icmp_signed("==", builder.and_(quarter, one), _constant(integer, 0))

        def signed(size, turned):
            sign = builder.shl(builder.and_(turned, two), _constant(integer, bits - 2))
            return builder.bitcast(builder.xor(builder.bitcast(size, integer), sign), vector)

        cosine = signed(builder.select(even, c, s), builder.add(quarter, one))
        sine = signed(builder.select(even, s, c), quarter)
        return context.make_tuple(builder, sig.return_type, [cosine, sine])

    return both(value), generate
