"""Sixteen numbers as one value inside Numba kernels: a vector type, its arithmetic, exp2 and softplus on it.

Numba leaves vectorising to LLVM's loop passes, which give up on tiled recurrences and have no vector
exponential. Here a kernel says what it means: ``h = exp2(x) * h + u`` on values of type ``Lanes``, sixteen
adjoining channels of float32 or float64. LLVM splits such a value into whatever registers the machine has
(one of 512 bits, two of 256, four of 128).

Numba has no bfloat16, so an array of it comes here as one of uint16, its upper half of a float32: what reads
it gives float32, what writes it rounds to the nearest, ties to even, and keeps NaN. All arithmetic between is
float32, so a kernel written with these functions serves the three dtypes unchanged. An array of int8, weights
that are read only, gives float32 too.

Every operation here carries the flags contract, reassoc, nsz and arcp itself: products and sums may be fused
and reordered, but nothing may assume that NaN or infinity do not occur. Kernels must therefore leave Numba's
own ``fastmath`` off, which would put flags on the two additions inside ``exp2`` that must be taken literally.

Numba's disk cache looks at the kernel's own file only: delete ``__pycache__`` after a change in this one.
"""

import operator
from math import factorial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, overload, register_model

# Kernels call an intrinsic without the typing context it is written with: no type checker can know.
intrinsic: Any = _intrinsic
LANES = 16
FLAGS = ("contract", "reassoc", "nsz", "arcp")

# 2^f = 1 + f q(f) for |f| <= 1/2, q interpolated at Chebyshev nodes: off by 2e-7 and 8e-18 at most, and exact
# at f = 0, so that a decay close to one keeps its distance from one.
_EXP2 = {
    32: (
        0.693147180559945309,
        0.240223466142434996,
        0.0555038077400626955,
        0.00966656208206828955,
        0.00133814940261764582,
    ),
    64: (
        0.693147180559945309,
        0.240226506959100988,
        0.0555041086648215946,
        0.00961812910760654052,
        0.00133335581464167498,
        0.00015403530442319545,
        0.0000152527338301471381,
        1.32154422329693437e-6,
        1.01780622566465422e-7,
        7.07265679936292334e-9,
        4.45499836310486857e-10,
    ),
}
# log(1 + v) = s l(s^2) with s = v / (2 + v), for v in [0, 1]: off by 4e-9 and 2e-18 relatively.
_LOG = {
    32: (
        2.00000000768175888,
        0.666663216413777732,
        0.400245952307037479,
        0.279651577451972689,
        0.281577783631090807,
    ),
    64: (
        2.0,
        0.666666666666661496,
        0.400000000001857475,
        0.285714285454541145,
        0.222222240807476732,
        0.181817408325048045,
        0.153866140423040078,
        0.133003740326746243,
        0.121101687280692177,
        0.0832450651186082058,
        0.170441635627813981,
    ),
}
# e^w - 1 = w p(w) for w in [-1/2, 0], by its own series: off by 4e-9 and 3e-17 relatively.
_EXPM1 = {bits: tuple(1.0 / factorial(k + 1) for k in range(count)) for bits, count in ((32, 9), (64, 14))}
LOG2_E = 1.4426950408889634


class Lanes(types.Type):
    """Sixteen floats side by side."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        scalar = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(scalar, LANES))


def _constant(vector, value):
    return ir.Constant(vector, [value] * vector.count)


def _splat(builder, scalar, vector):
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _widen(context, builder, kind, lanes, value):
    """The LLVM vector for one operand, a scalar of any number type spread over all lanes."""
    if isinstance(kind, Lanes):
        return value
    return _splat(builder, context.cast(builder, value, kind, lanes.dtype), context.get_value_type(lanes))


def _arithmetic(function, method):
    @infer_global(function)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            lanes = next((x for x in args if isinstance(x, Lanes)), None)
            if lanes is not None and all(x == lanes or isinstance(x, types.Number) for x in args):
                return signature(lanes, *args)
            return None

    def lower(context, builder, sig, args):
        left, right = (
            _widen(context, builder, kind, sig.return_type, value)
            for kind, value in zip(sig.args, args, strict=True)
        )
        return getattr(builder, method)(left, right, flags=FLAGS)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(function, *pair)(lower)


for _function, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
    (operator.iadd, "fadd"),
    (operator.imul, "fmul"),
):
    _arithmetic(_function, _method)


def _is_half(array):
    return array.dtype == types.uint16


def _number(array):
    """The dtype that the elements of an array are computed in."""
    return types.float32 if _is_half(array) or array.dtype == types.int8 else array.dtype


def _as(kind, count):
    """The LLVM type of ``count`` values, one value being no vector."""
    return ir.VectorType(kind, count) if count else kind


def _fill(kind, value):
    return _constant(kind, value) if isinstance(kind, ir.VectorType) else ir.Constant(kind, value)


def _stored(context, array, count=LANES):
    """The LLVM type of ``count`` elements as they lie in memory."""
    kind = ir.IntType(16) if _is_half(array) else context.get_value_type(array.dtype)
    return _as(kind, count)


def _read(builder, array, value):
    """What lay in memory as numbers: a bfloat16 is the upper half of a float32."""
    count = value.type.count if isinstance(value.type, ir.VectorType) else 0
    if array.dtype == types.int8:
        return builder.sitofp(value, _as(ir.FloatType(), count))
    if not _is_half(array):
        return value
    bits = builder.zext(value, _as(ir.IntType(32), count))
    return builder.bitcast(builder.shl(bits, _fill(bits.type, 16)), _as(ir.FloatType(), count))


def _rounded(builder, array, value):
    """Numbers as they are to lie in memory: bfloat16 by rounding to nearest, ties to even, NaN kept quiet."""
    if not _is_half(array):
        return value
    count = value.type.count if isinstance(value.type, ir.VectorType) else 0
    bits = builder.bitcast(value, _as(ir.IntType(32), count))
    kind = bits.type
    upper = builder.lshr(bits, _fill(kind, 16))
    odd = builder.and_(upper, _fill(kind, 1))
    nearest = builder.lshr(builder.add(builder.add(bits, _fill(kind, 0x7FFF)), odd), _fill(kind, 16))
    quiet = builder.or_(upper, _fill(kind, 0x40))
    result = builder.select(builder.fcmp_unordered("uno", value, value), quiet, nearest)
    return builder.trunc(result, _as(ir.IntType(16), count))


def _place(context, builder, sig, args, kind):
    """Where element ``args[1]`` of the flat array ``args[0]`` lies, as a pointer to ``kind``."""
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.bitcast(cgutils.gep_inbounds(builder, data, index), kind.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """The sixteen elements of a flat array from ``index`` on."""
    lanes = Lanes(_number(array))

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args, _stored(context, array))
        return _read(builder, array, builder.load(place, align=array.dtype.bitwidth // 8))

    return lanes(array, index), generate


@intrinsic
def spread(typingctx, array, index):
    """One element of a flat array in every lane."""
    lanes = Lanes(_number(array))

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args, _stored(context, array, 0))
        return _splat(builder, _read(builder, array, builder.load(place)), context.get_value_type(lanes))

    return lanes(array, index), generate


@intrinsic
def get(typingctx, array, index):
    """One element of a flat array as a number."""
    number = _number(array)

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args, _stored(context, array, 0))
        return _read(builder, array, builder.load(place))

    return number(array, index), generate


@intrinsic
def put(typingctx, array, index, value):
    """Write one number to a flat array."""

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args, _stored(context, array, 0))
        number = context.cast(builder, args[2], sig.args[2], _number(array))
        builder.store(_rounded(builder, array, number), place)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic
def store(typingctx, array, index, value):
    """Write sixteen elements of a flat array from ``index`` on."""

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args, _stored(context, array))
        builder.store(_rounded(builder, array, args[2]), place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic(prefer_literal=True)
def prefetch(typingctx, array, index, write):
    """Ask for the cache line of one element, to read or (``write`` 1) to write it; any index is harmless."""

    def generate(context, builder, sig, args):
        index = context.cast(builder, args[1], sig.args[1], types.intp)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [index]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, number(write.literal_value), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, index, write), generate


@intrinsic
def zeros(typingctx, array):
    """Sixteen zeros of the dtype that an array is computed in."""
    lanes = Lanes(_number(array))
    return lanes(array), lambda context, builder, sig, args: _constant(context.get_value_type(lanes), 0.0)


@intrinsic
def total(typingctx, value):
    """The sum over the lanes, always in the same order."""

    def generate(context, builder, sig, args):
        x, count = args[0], LANES
        while count > 1:
            count //= 2
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
                for first in (0, count)
            )
            nothing = ir.Constant(x.type, ir.Undefined)
            left, right = (builder.shuffle_vector(x, nothing, mask) for mask in (low, high))
            x = builder.fadd(left, right)
        return builder.extract_element(x, ir.IntType(32)(0))

    return value.dtype(value), generate


@intrinsic
def wide(typingctx, value):
    """The same numbers in float64."""
    lanes = Lanes(types.float64)

    def generate(context, builder, sig, args):
        vector = context.get_value_type(lanes)
        return args[0] if args[0].type == vector else builder.fpext(args[0], vector)

    return lanes(value), generate


def _polynomial(builder, x, coefficients):
    result = _constant(x.type, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = builder.fadd(builder.fmul(result, x, flags=FLAGS), _constant(x.type, c), flags=FLAGS)
    return result


@intrinsic
def exp2(typingctx, value):
    """2 to the power of each lane; below the smallest normal number it stays there, NaN stays NaN."""
    bits = value.dtype.bitwidth
    mantissa, bias = (23, 127) if bits == 32 else (52, 1023)
    # Adding 1.5 * 2^mantissa leaves the nearest integer in the low bits; the additions must not be folded.
    magic = 1.5 * 2.0**mantissa + bias

    def generate(context, builder, sig, args):
        x = args[0]
        vector, integer = x.type, ir.VectorType(ir.IntType(bits), LANES)
        # The comparisons are false for NaN, which therefore passes through.
        for bound, sign in ((1.0 - bias, "<"), (bias + 1.0, ">")):
            limit = _constant(vector, bound)
            x = builder.select(builder.fcmp_ordered(sign, x, limit), limit, x)
        shifted = builder.fadd(x, _constant(vector, magic))
        f = builder.fsub(x, builder.fsub(shifted, _constant(vector, magic)), flags=FLAGS)
        q = _polynomial(builder, f, _EXP2[bits])
        p = builder.fadd(builder.fmul(q, f, flags=FLAGS), _constant(vector, 1.0), flags=FLAGS)
        power = builder.shl(builder.bitcast(shifted, integer), _constant(integer, mantissa))
        return builder.fmul(p, builder.bitcast(power, vector), flags=FLAGS)

    return value(value), generate


@intrinsic
def _positive_part(typingctx, value):
    """max(x, 0), NaN where x is."""

    def generate(context, builder, sig, args):
        zero = _constant(args[0].type, 0.0)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return value(value), generate


@intrinsic
def _minus_size(typingctx, value):
    """-|x|."""

    def generate(context, builder, sig, args):
        zero = _constant(args[0].type, 0.0)
        opposite = builder.fsub(zero, args[0])
        return builder.select(builder.fcmp_ordered(">", args[0], zero), opposite, args[0])

    return value(value), generate


@intrinsic
def _log_series(typingctx, w):
    """log(1 + v) / s for w = s^2, s = v / (2 + v), v in [0, 1]."""
    return w(w), lambda context, builder, sig, args: _polynomial(builder, args[0], _LOG[w.dtype.bitwidth])


@intrinsic
def _expm1_series(typingctx, w):
    """(e^w - 1) / w for w in [-1/2, 0]."""
    return w(w), lambda context, builder, sig, args: _polynomial(builder, args[0], _EXPM1[w.dtype.bitwidth])


def expm1(x):
    """exp(x) - 1 of each lane, for x <= 0, exact to rounding where x is small."""


@overload(expm1, inline="always")
def _expm1(x):
    def form(x):
        # What lies below -1/2 loses no digits by the subtraction; what is above goes by the series.
        beyond = _positive_part(-0.5 - x) * -1.0
        near = x - beyond
        grown = exp2(beyond * LOG2_E)
        return near * _expm1_series(near) * grown + (grown - 1.0)

    return form


def sigmoid(x):
    """1 / (1 + exp(-x)) of each lane."""


def softplus(x):
    """log(1 + exp(x)) of each lane, exact to rounding for large and small x."""


@overload(sigmoid, inline="always")
def _sigmoid(x):
    return lambda x: 1.0 / (1.0 + exp2(x * -LOG2_E))


@overload(softplus, inline="always")
def _softplus(x):
    def form(x):
        v = exp2(_minus_size(x) * LOG2_E)
        s = v / (2.0 + v)
        return _positive_part(x) + s * _log_series(s * s)

    return form


@intrinsic
def load_some(typingctx, array, index, size):
    """The first ``size`` elements of a flat array from ``index`` on, zeros behind; all at 16 or more."""
    lanes = Lanes(_number(array))

    def generate(context, builder, sig, args):
        vector = _stored(context, array)
        place = _place(context, builder, sig, args, vector.element)
        count = context.cast(builder, args[2], sig.args[2], types.intp)
        full = builder.icmp_signed(">=", count, count.type(LANES))
        with builder.if_else(full) as (whole, part):
            with whole:
                source = builder.bitcast(place, vector.as_pointer())
                sixteen = builder.load(source, align=array.dtype.bitwidth // 8)
                after_whole = builder.basic_block
            with part:
                padded = cgutils.alloca_once(builder, vector)
                builder.store(ir.Constant(vector, [0] * LANES), padded)
                first = builder.bitcast(padded, vector.element.as_pointer())
                with cgutils.for_range(builder, count) as loop:
                    element = builder.load(cgutils.gep_inbounds(builder, place, loop.index))
                    builder.store(element, cgutils.gep_inbounds(builder, first, loop.index))
                fewer = builder.load(padded)
                after_part = builder.basic_block
        value = builder.phi(vector)
        value.add_incoming(sixteen, after_whole)
        value.add_incoming(fewer, after_part)
        return _read(builder, array, value)

    return lanes(array, index, size), generate


@intrinsic
def store_some(typingctx, array, index, size, value):
    """Write the first ``size`` lanes to a flat array from ``index`` on; all sixteen at 16 or more."""

    def generate(context, builder, sig, args):
        value = _rounded(builder, array, args[3])
        vector = value.type
        place = _place(context, builder, sig, args, vector.element)
        count = context.cast(builder, args[2], sig.args[2], types.intp)
        full = builder.icmp_signed(">=", count, count.type(LANES))
        with builder.if_else(full) as (whole, part):
            with whole:
                target = builder.bitcast(place, vector.as_pointer())
                builder.store(value, target, align=array.dtype.bitwidth // 8)
            with part:
                padded = cgutils.alloca_once(builder, vector)
                builder.store(value, padded)
                first = builder.bitcast(padded, vector.element.as_pointer())
                with cgutils.for_range(builder, count) as loop:
                    element = builder.load(cgutils.gep_inbounds(builder, first, loop.index))
                    builder.store(element, cgutils.gep_inbounds(builder, place, loop.index))
        return context.get_dummy_value()

    return types.void(array, index, size, value), generate


def scratch(count, like):
    """A flat array of zeros in the dtype that another is computed in, on a cache line's edge: split loads
    cost double."""


@overload(scratch)
def _scratch(count, like):
    kind = np.dtype(str(_number(like)))

    def form(count, like):
        room = np.zeros(count + 64, kind)
        first = -room.ctypes.data % 64 // room.itemsize
        return room[first : first + count]

    return form
