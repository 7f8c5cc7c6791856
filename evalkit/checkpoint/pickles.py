"""A pickle, read without running anything: opcodes in, plain values and inert objects out.

The standard library only takes the bytes apart (`pickletools.genops`). Objects are put together
here, by the names that the caller knows; every other class becomes an `Inert` object. Nothing is
imported, no method of any object is called, and only objects made here are changed.
"""

from __future__ import annotations

import argparse
import pickletools
from collections import OrderedDict
from pickle import UnpicklingError
from typing import IO, TYPE_CHECKING, Any, ClassVar

from evalkit.checkpoint.inert import Inert, Named, require_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Of 1 byte a hostile pickle makes an object of 200: 2 million of them fit 400 MB, and are read in
# some seconds. The pickle of a checkpoint of 1,000 tensors and their optimizer takes 100,000.
MAX_STEPS = 2_000_000
MAX_COPIED_BYTES = 512 << 20  # text and bytes that are given to what rebuilds arrays
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # as protocols 0 to 2 still write
TOO_MANY = f"more than {MAX_STEPS:,} objects beside the tensors"
MAX_INTEGER_BITS = 4096
CALLED = "()"  # once in a name, however often what it stands for is called
ARGUMENTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
    )
)


class Unpickler:
    """Reads the pickles of one file.

    Args:
        known: What to make of the classes and functions that are known, by their full names.
            Values that are not `Named` are put in their place as they are.
        persistent: What stands for an identifier that `torch.save` wrote instead of an object.
    """

    def __init__(
        self, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.unknown: dict[str, None] = {}  # full names that a pickle uses and nobody knows
        self._known = known
        self._persistent = persistent
        self._steps = MAX_STEPS
        self._bytes = MAX_COPIED_BYTES
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: IO[bytes]) -> Any:
        """Read one pickle and leave *stream* behind its end.

        Raises:
            pickle.UnpicklingError: It is damaged, or asks for more than a checkpoint needs.
            ValueError, LookupError, TypeError: It is damaged.
        """
        self._stack, self._below, self._memo = [], [], {}
        for opcode, argument, _position in pickletools.genops(stream):
            self._steps -= 1
            if self._steps < 0:
                raise UnpicklingError(TOO_MANY)
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            operation = self._operations.get(name)
            if operation is None:
                raise UnpicklingError(f"opcode {name} has no place in a checkpoint")
            operation(self, argument)
        raise UnpicklingError("the pickle has no end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_argument(self, argument: Any) -> None:
        if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
            raise UnpicklingError(f"a number of more than {MAX_INTEGER_BITS} bits")
        self._stack.append(argument)

    def _ignore(self, _argument: Any) -> None:
        """Protocol and frames say how to read, not what."""

    def _spend(self, steps: int, copied_bytes: int = 0) -> None:
        self._steps -= steps
        self._bytes -= copied_bytes
        if self._steps < 0 or self._bytes < 0:
            raise UnpicklingError(TOO_MANY)

    def _pop_last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise UnpicklingError("a tuple of more values than there are")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _pop_mark(self, _argument: Any = None) -> list[Any]:
        values = self._stack
        self._stack = self._below.pop()
        return values

    def _mark(self, _argument: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _global(self, argument: str) -> None:
        module, _space, name = argument.partition(" ")
        self._push(self._find(module, name))

    def _stack_global(self, _argument: Any) -> None:
        module, name = self._pop_last(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise UnpicklingError("a name that is no text")
        self._push(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        self._spend(0, len(module) + len(name))
        path = f"{PYTHON_2.get(module, module)}.{name}"
        if path not in self._known:
            self.unknown[path] = None
            return Named(path)
        found = self._known[path]
        return Named(path, found) if callable(found) else found

    def _reduce(self, _argument: Any) -> None:
        function, arguments = self._pop_last(2)
        self._push(self._make(function, arguments))

    def _newobj_ex(self, _argument: Any) -> None:
        function, arguments, options = self._pop_last(3)
        made = self._make(function, arguments)
        if isinstance(made, Inert) and isinstance(options, dict):
            self._spend(len(made.arguments) + len(options))
            made.arguments = (*made.arguments, *options.values())
        self._push(made)

    def _inst(self, argument: str) -> None:
        module, _space, name = argument.partition(" ")
        self._push(self._make_from_mark(self._find(module, name), self._pop_mark()))

    def _obj(self, _argument: Any) -> None:
        function, *arguments = self._pop_mark()
        self._push(self._make_from_mark(function, arguments))

    def _make_from_mark(self, function: Any, arguments: list[Any]) -> Any:
        return self._make(function, tuple(arguments))

    def _make(self, function: Any, arguments: Any) -> Any:
        """Make what a pickle would get from calling *function*; only known names are called."""
        if not isinstance(arguments, tuple):
            raise UnpicklingError("arguments that are no tuple")
        if isinstance(function, Inert):
            return Inert(path=f"{function.path.removesuffix(CALLED)}{CALLED}", arguments=arguments)
        if not isinstance(function, Named):
            raise UnpicklingError(f"a call of {type(function).__name__}, which is no name")
        if function.make is None:
            return Inert(path=function.path, arguments=arguments)
        for value in arguments:
            if isinstance(value, str | bytes | bytearray):
                self._spend(0, len(value))
            elif isinstance(value, list | tuple | dict | set):
                self._spend(len(value))
        return function.make(*arguments)

    def _build(self, _argument: Any) -> None:
        target, state = self._pop_last(2)
        if isinstance(state, dict):
            self._spend(len(state))
        if isinstance(target, Inert):
            if isinstance(target.state, dict):
                self._spend(len(target.state))
            target.state = _merged(target.state, state)
        elif isinstance(target, argparse.Namespace) and isinstance(state, dict):
            vars(target).update({str(key): value for key, value in state.items()})
        elif hasattr(type(target), "restore"):
            target.restore(state)
        self._push(target)  # the state of others, such as OrderedDict, is not needed

    def _append(self, _argument: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _argument: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif type(target) is list:
            target.extend(values)
        elif type(target) is set:
            target.update(map(require_key, values))
        else:
            raise UnpicklingError(f"values put into {type(target).__name__}")

    def _setitem(self, _argument: Any) -> None:
        self._set(self._pop_last(2))

    def _setitems(self, _argument: Any) -> None:
        self._set(self._pop_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.entries
        if type(target) not in (dict, OrderedDict):
            raise UnpicklingError(f"entries put into {type(target).__name__}")
        for key, value in _pairs(values):
            target[require_key(key)] = value

    def _dict(self, _argument: Any) -> None:
        self._push({require_key(key): value for key, value in _pairs(self._pop_mark())})

    def _list(self, _argument: Any) -> None:
        self._push(self._pop_mark())

    def _tuple1(self, _argument: Any) -> None:
        self._push(tuple(self._pop_last(1)))

    def _tuple2(self, _argument: Any) -> None:
        self._push(tuple(self._pop_last(2)))

    def _tuple3(self, _argument: Any) -> None:
        self._push(tuple(self._pop_last(3)))

    def _none(self, _argument: Any) -> None:
        self._push(None)

    def _true(self, _argument: Any) -> None:
        self._push(True)  # noqa: FBT003 - it is the value

    def _false(self, _argument: Any) -> None:
        self._push(False)  # noqa: FBT003 - it is the value

    def _empty_tuple(self, _argument: Any) -> None:
        self._push(())

    def _empty_list(self, _argument: Any) -> None:
        self._push([])

    def _empty_dict(self, _argument: Any) -> None:
        self._push({})

    def _empty_set(self, _argument: Any) -> None:
        self._push(set())

    def _tuple(self, _argument: Any) -> None:
        self._push(tuple(self._pop_mark()))

    def _frozenset(self, _argument: Any) -> None:
        self._push(frozenset(map(require_key, self._pop_mark())))

    def _get(self, argument: Any) -> None:
        self._push(self._memo[int(argument)])

    def _put(self, argument: Any) -> None:
        self._memo[int(argument)] = self._stack[-1]

    def _memoize(self, _argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _pop(self, _argument: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _dup(self, _argument: Any) -> None:
        self._push(self._stack[-1])

    def _persid(self, argument: Any) -> None:
        self._push(self._persist(argument))

    def _binpersid(self, _argument: Any) -> None:
        self._push(self._persist(self._stack.pop()))

    def _persist(self, identifier: Any) -> Any:
        if self._persistent is None:
            raise UnpicklingError("a reference to something outside of the pickle")
        return self._persistent(identifier)

    _operations: ClassVar[dict[str, Callable[[Unpickler, Any], Any]]] = {
        **dict.fromkeys(ARGUMENTS, _push_argument),
        "PROTO": _ignore,
        "FRAME": _ignore,
        "NONE": _none,
        "NEWTRUE": _true,
        "NEWFALSE": _false,
        "EMPTY_TUPLE": _empty_tuple,
        "EMPTY_LIST": _empty_list,
        "EMPTY_DICT": _empty_dict,
        "EMPTY_SET": _empty_set,
        "TUPLE1": _tuple1,
        "TUPLE2": _tuple2,
        "TUPLE3": _tuple3,
        "MARK": _mark,
        "POP_MARK": _pop_mark,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "NEWOBJ": _reduce,
        "NEWOBJ_EX": _newobj_ex,
        "INST": _inst,
        "OBJ": _obj,
        "BUILD": _build,
        "APPEND": _append,
        "APPENDS": _appends,
        "ADDITEMS": _appends,
        "SETITEM": _setitem,
        "SETITEMS": _setitems,
        "DICT": _dict,
        "LIST": _list,
        "TUPLE": _tuple,
        "FROZENSET": _frozenset,
        "GET": _get,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "PUT": _put,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "MEMOIZE": _memoize,
        "POP": _pop,
        "DUP": _dup,
        "PERSID": _persid,
        "BINPERSID": _binpersid,
    }


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(values) % 2:
        raise UnpicklingError("a key without a value")
    return zip(values[::2], values[1::2], strict=True)
