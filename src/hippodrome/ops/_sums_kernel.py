"""Sums over the lanes of sixteen values at once, for Numba kernels: a tree that adds and transposes together.

One value's sum alone takes four rounds of shuffling and adding, most of whose lanes are thrown away. Here two
values meet in each round and every lane counts: ``quarters`` takes four values to one, ``joined`` four of
those to the sixteen sums in order. Between the two, partial sums of several steps may be added up.
"""

from llvmlite import ir

from hippodrome.ops._lanes_kernel import FLAGS, LANES, intrinsic


def _met(builder, left, right, width):
    """Runs of ``width`` lanes of both values, the halves of each added: left's runs, then right's."""
    starts = [side + run for side in (0, LANES) for run in range(0, LANES, width)]
    kind = ir.VectorType(ir.IntType(32), LANES)
    halves = (
        builder.shuffle_vector(
            left, right, ir.Constant(kind, [s + half + i for s in starts for i in range(width // 2)])
        )
        for half in (0, width // 2)
    )
    return builder.fadd(*halves, flags=FLAGS)


def _tree(first):
    def generate(context, builder, sig, args):
        a, b, c, d = args
        pairs = _met(builder, a, b, first), _met(builder, c, d, first)
        return _met(builder, *pairs, first // 2)

    return generate


@intrinsic
def quarters(typingctx, a, b, c, d):
    """Four values as one: four lanes to each, which add up to its sum."""
    return a(a, b, c, d), _tree(LANES)


@intrinsic
def joined(typingctx, a, b, c, d):
    """What ``quarters`` made of four values each, as the sixteen sums in order."""
    return a(a, b, c, d), _tree(LANES // 4)
