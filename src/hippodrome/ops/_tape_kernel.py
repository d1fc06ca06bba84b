"""Compiled code that runs a list of kernel calls on a team of threads, all kernels through one signature.

A kernel that Numba has compiled takes its arguments one by one, each kernel others. ``entry`` puts a few
instructions before each, which load the arguments from memory: called as ``entry(first, last, words)``, all
kernels look alike and one loop can run them. ``run`` is that loop.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, int64, typeof, types, void
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic
LINE = 8
"""Words of a cache line. A call has one: what is constant about it, and two counters that threads share."""
CALLS, YIELD, FAILED = 0, 1, 2
"""Places in the line before the calls: how many there are, the address of a function that gives the core to
another thread, and the number of a call that failed, from 1."""
ENTRY, WORDS, TILES, PIECES, TAKEN, DONE = range(6)
"""Places in a call: its entry, the address of its arguments, its tiles and in how many pieces they are handed
out, and how many pieces were handed out and are done."""
PATIENCE = 4000
"""Looks at a counter before a waiting thread offers its core: some ten microseconds."""

_WORD = ir.IntType(64)
_PACKED = ir.FunctionType(ir.IntType(32), [_WORD, _WORD, _WORD.as_pointer()])
_ENTRIES: dict[int, tuple[int, object, object]] = {}


def _words(value: Any) -> list[int]:
    """A kernel's argument as machine words, as compiled code hands them on."""
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    if isinstance(value, float):
        return np.array([value]).view(np.int64).tolist()
    return [int(value)]


def pack(arguments: tuple[Any, ...]) -> Any:
    """The arguments of a kernel after its range of tiles, as an entry reads them."""
    return np.array([word for value in arguments for word in _words(value)] or [0], np.int64)


@global_compiler_lock
def entry(kernel: Any, arguments: tuple[Any, ...]) -> int:
    """The address of ``entry(first, last, words)`` of a kernel for arguments of these types.

    The kernel must have run with such arguments. Raises TypeError where it takes what no word holds.
    """
    signature = tuple(typeof(value) for value in (0, 0, *arguments))
    compiled = kernel.overloads[signature]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    if address not in _ENTRIES:
        context = compiled.target_context
        kind = context.call_conv.get_function_type(compiled.fndesc.restype, compiled.fndesc.argtypes)
        if len(kind.args) - 4 != sum(len(_words(value)) for value in arguments):
            raise TypeError(f"{kernel.__name__} takes arguments that are no numbers, tuples and arrays")
        library = context.codegen().create_library(f"entry_{len(_ENTRIES)}")
        module = library.create_ir_module(f"entry_{len(_ENTRIES)}")
        name = f"hippodrome_entry_{address:x}"
        _write(ir.Function(module, _PACKED, name), kind, address)
        library.add_ir_module(module)
        library.finalize()
        # The kernel's own code must not be freed before the entry.
        _ENTRIES[address] = (library.get_pointer_to_function(name), library, compiled)
    return _ENTRIES[address][0]


def _write(function: Any, kind: Any, address: int) -> None:
    """The body of an entry: load each argument, call, give back the status."""
    builder = ir.IRBuilder(function.append_basic_block())
    first, last, words = function.args
    given: list[Any] = [
        builder.alloca(kind.args[0].pointee),
        builder.alloca(kind.args[1].pointee),
        first,
        last,
    ]
    for i, wanted in enumerate(kind.args[4:]):
        value = builder.load(builder.gep(words, [_WORD(i)]))
        if isinstance(wanted, ir.PointerType):
            value = builder.inttoptr(value, wanted)
        elif isinstance(wanted, ir.DoubleType):
            value = builder.bitcast(value, wanted)
        elif isinstance(wanted, ir.IntType) and wanted.width < 64:
            value = builder.trunc(value, wanted)
        elif not (isinstance(wanted, ir.IntType) and wanted.width == 64):
            raise TypeError(f"no word holds an argument of type {wanted}")
        given.append(value)
    builder.ret(builder.call(builder.inttoptr(_WORD(address), kind.as_pointer()), given))


@intrinsic
def _call_entry(typingctx, address, first, last, words):
    """``entry(first, last, words)``, all of them numbers; its status."""

    def generate(context, builder, sig, args):
        function = builder.inttoptr(args[0], _PACKED.as_pointer())
        status = builder.call(function, [args[1], args[2], builder.inttoptr(args[3], _WORD.as_pointer())])
        return builder.sext(status, _WORD)

    return int64(int64, int64, int64, int64), generate


@intrinsic
def _ask(typingctx, address):
    """``int function(void)`` of a C library."""

    def generate(context, builder, sig, args):
        function = builder.inttoptr(args[0], ir.FunctionType(ir.IntType(32), []).as_pointer())
        return builder.sext(builder.call(function, []), _WORD)

    return int64(int64), generate


def _place(context, builder, sig, args):
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


@intrinsic
def _add_one(typingctx, words, index):
    """Count up a word that all threads see; what it held before."""

    def generate(context, builder, sig, args):
        place = _place(context, builder, sig, args)
        return builder.atomic_rmw("add", place, _WORD(1), "acq_rel")

    return int64(words, int64), generate


@intrinsic
def _look(typingctx, words, index):
    """A word that another thread may change."""

    def generate(context, builder, sig, args):
        return builder.load_atomic(_place(context, builder, sig, args), "acquire", 8)

    return int64(words, int64), generate


@cfunc(void(types.CPointer(int64)), cache=True)
def run(program):
    """Run all calls of a program in order: every thread of a team calls this once.

    A thread takes pieces of a call until none is left, and goes on when all are done. So nobody waits for a
    thread that has not come yet, its core busy with something else: the others do its work. After a call that
    failed none runs.
    """
    words = carray(program, (LINE,))
    calls, relieve = words[CALLS], words[YIELD]
    words = carray(program, (LINE * (calls + 1),))
    for i in range(calls):
        at = LINE * (i + 1)
        tiles, pieces = words[at + TILES], words[at + PIECES]
        piece = _add_one(words, at + TAKEN)
        while piece < pieces:
            first, last = tiles * piece // pieces, tiles * (piece + 1) // pieces
            if _call_entry(words[at + ENTRY], first, last, words[at + WORDS]) != 0:
                words[FAILED] = i + 1
            _add_one(words, at + DONE)
            piece = _add_one(words, at + TAKEN)
        looks = 0
        while _look(words, at + DONE) < pieces:
            looks += 1
            if looks > PATIENCE and relieve != 0:
                _ask(relieve)
        if _look(words, FAILED) != 0:
            break
