"""Elementwise functions of Triton kernels, each as few instructions as float32 allows; exact ones in float64.

The hardware's own approximations (2^x, 1/x: within 2 units in the last place) are asked for in their form
that takes numbers below 1e-38 for zero: without it each costs three instructions more to scale them.
The interpreter, which knows no assembly, computes the same functions.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def exp2(x):
    """2^x."""
    if ASSEMBLY and x.dtype == tl.float32:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
    else:
        return tl.exp2(x)


@triton.jit
def reciprocal(x):
    """1 / x."""
    if ASSEMBLY and x.dtype == tl.float32:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
    else:
        return 1.0 / x


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)); NaN stays NaN."""
    return reciprocal(1.0 + exp2(-x * LOG2_E))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), to rounding also where it is small; NaN stays NaN."""
    s = exp2(-tl.abs(x) * LOG2_E)
    if x.dtype == tl.float64:
        # Where 1 + s loses digits of s, what it lost is what is left of s over the derivative.
        whole = 1.0 + s
        small = tl.log(whole) + (s - (whole - 1.0)) / whole
    else:
        # log(1 + s) / s on [0, 1], by least squares of the relative error (4e-8).
        small = -0.028991956263780594 + s * 0.0051058256067335606
        small = -0.13590599596500397 + s * (0.07738073915243149 + s * small)
        small = -0.2483394593000412 + s * (0.1907130926847458 + s * small)
        small = -0.4999943673610687 + s * (0.3331793546676636 + s * small)
        small = s * (0.9999999403953552 + s * small)
    return tl.maximum(x, 0.0) + small


@triton.jit
def softplus_slope(y):
    """The derivative of softplus where its value is y: 1 - exp(-y), by its series where that would cancel."""
    series = 1.0 / 6.0 - y * (1.0 / 24.0 - y * (1.0 / 120.0 - y * (1.0 / 720.0)))
    series = y * (1.0 - y * (0.5 - y * series))
    return tl.where(y < 0.01, series, 1.0 - exp2(-y * LOG2_E))
