"""A pickle read as data: its opcodes are interpreted here, nothing it names is imported and nothing is called.

What a pickle would import becomes a `Name`, what it would call a `Call`; both are inert records. Python's own
unpickler can be confined to a list of names, but it still calls what is on the list with whatever a file says.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_OPCODES = 1_000_000  # a generator takes some 10 000; each makes at most one small object

# What pickled networks use of the standard library. Its other names are the mark of an attack, and worth a sentence.
HARMLESS_MODULES = {"_codecs", "collections", "copyreg", "enum", "functools", "math", "types"}
HARMLESS_BUILTINS = {"complex", "frozenset", "getattr", "object", "range", "set", "slice"}


class Refused(ValueError):
    """Why these bytes are not read, as a clause that completes 'can't be read: ...'."""


@dataclass(frozen=True, slots=True)
class Name:
    """A module, or a module's attribute, that the pickle refers to; never imported."""

    path: str


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """An object the pickle would have built: what it would have called, and what it would have set afterwards."""

    function: Any  # Name, or whatever else the pickle meant to call
    arguments: Any
    state: Any = None
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)


class UnhashedDict(list[tuple[Any, Any]]):
    """A dict, not hashed yet: its keys are as foreign as its values."""


def read(data: memoryview) -> tuple[Any, memoryview]:
    """What the pickle at the start of `data` describes, and the bytes after it; Refused says what is wrong.

    Values are None, bool, int, float, str, memoryview (bytes, not copied), list (also for sets), tuple, UnhashedDict, Name
    and Call. They may contain themselves, or share a part a million times: code that walks them must set a bound.
    """
    reader = _Reader(data)
    try:
        return reader.run(), data[reader.position :]
    except IndexError:
        raise Refused("its pickle takes more from the stack than it put there") from None
    except UnicodeDecodeError:
        raise Refused("its pickle holds text that is not UTF-8") from None


class _Reader:
    """The pickle machine of protocols 2 to 5, as far as snapshots use it: a stack, marks on it, and a memo."""

    def __init__(self, data: memoryview):
        self.data, self.position = data, 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = bytes(self.take(1))
            if code == pickle.STOP:
                return self.stack.pop()
            if code not in ACTIONS:
                raise Refused(f"its pickle has opcode {code!r} at byte {self.position - 1}, which no snapshot uses")
            action, operand = ACTIONS[code]
            action(self, operand)
        raise Refused(f"its pickle has more than {MAX_OPCODES} instructions")

    def take(self, count: int) -> memoryview:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise Refused(f"it ends at byte {len(self.data)} and should continue to {self.position}; it was cut short")
        return self.data[start : self.position]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def skip(self, layout: str) -> None:
        self.number(layout)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_number(self, layout: str) -> None:
        self.push(self.number(layout))

    def push_long(self, layout: str) -> None:
        self.push(int.from_bytes(self.take(self.number(layout)), "little", signed=True))

    def push_text(self, layout: str) -> None:
        self.push(str(self.take(self.number(layout)), "utf-8"))

    def push_bytes(self, layout: str) -> None:
        self.push(self.take(self.number(layout)))

    def push_new(self, make: Callable[[], Any]) -> None:
        self.push(make())

    def mark(self, _: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def pop_mark(self, _: None) -> None:
        self.since_mark()

    def duplicate(self, _: None) -> None:
        self.push(self.stack[-1])

    def remember(self, layout: str | None) -> None:
        self.memo[self.number(layout) if layout else len(self.memo)] = self.stack[-1]

    def recall(self, layout: str) -> None:
        index = self.number(layout)
        if index not in self.memo:
            raise Refused(f"its pickle recalls value {index} without having kept it")
        self.push(self.memo[index])

    def push_tuple(self, count: int | None) -> None:
        if count is None:
            values = self.since_mark()
        else:
            values = [self.stack.pop() for _ in range(count)][::-1]
        self.push(tuple(values))

    def frozen_set(self, _: None) -> None:
        self.push(self.since_mark())

    def append(self, many: bool) -> None:
        values = self.since_mark() if many else [self.stack.pop()]
        target = self.stack[-1]
        into = target.items if isinstance(target, Call) else target
        if type(into) is not list:
            raise Refused("its pickle appends to something that is not a list")
        into.extend(values)

    def set_items(self, many: bool) -> None:
        values = self.since_mark() if many else [self.stack.pop(), self.stack.pop()][::-1]
        target = self.stack[-1]
        into = target.pairs if isinstance(target, Call) else target
        if len(values) % 2 or not isinstance(target, Call | UnhashedDict):
            raise Refused("its pickle sets items of something that is not a dict")
        into.extend(zip(values[::2], values[1::2], strict=True))

    def name_lines(self, _: None) -> None:
        self.push(_name(self.line(), self.line()))

    def line(self) -> str:
        ends = bytes(self.data[self.position : self.position + 1000]).find(b"\n")
        if ends < 0:
            raise Refused(f"its pickle has a name without an end at byte {self.position}")
        return str(self.take(ends + 1)[:-1], "utf-8")

    def name_stack(self, _: None) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise Refused("its pickle refers to a name that is not text")
        self.push(_name(module, attribute))

    def call(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.push(_called(function, arguments))

    def call_with_keywords(self, _: None) -> None:
        keywords, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.push(Call(function, (arguments, keywords)))

    def persistent(self, _: None) -> None:
        self.push(Call(Name("persistent_id"), self.stack.pop()))

    def build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call) or target.state is not None:
            raise Refused("its pickle sets the state of something that has none")
        target.state = state


def _name(module: str, attribute: str) -> Name:
    path = f"{module}.{attribute}".replace("__builtin__.", "builtins.", 1)
    if path.startswith("dnnlib.tflib."):
        raise Refused("it is a TensorFlow snapshot; the legacy.py of stylegan3 makes a PyTorch one of it")
    package, _, rest = path.partition(".")
    harmless = package in HARMLESS_MODULES or (package == "builtins" and rest in HARMLESS_BUILTINS)
    if package in sys.stdlib_module_names and not harmless:
        raise Refused(f"it asks for {path[:80]!r}, which no network needs, so it may be an attack")
    return Name(path)


def _called(function: Any, arguments: Any) -> Name | Call:
    """A call; those with which dill writes a mere name are that name."""
    match function, arguments:
        case Name("dill._dill._load_type"), (str(kind),):
            return Name(f"builtins.{kind}")
        case Name("dill._dill._import_module"), (str(module), *_):
            return Name(module)
        case Name("dill._dill._get_attr"), (Name(module), str(attribute)):
            return _name(module, attribute)
    return Call(function, arguments)


ACTIONS: dict[bytes, tuple[Callable[[_Reader, Any], None], Any]] = {
    pickle.PROTO: (_Reader.skip, "<B"),
    pickle.FRAME: (_Reader.skip, "<Q"),
    pickle.NONE: (_Reader.push, None),
    pickle.NEWTRUE: (_Reader.push, True),
    pickle.NEWFALSE: (_Reader.push, False),
    pickle.BININT: (_Reader.push_number, "<i"),
    pickle.BININT1: (_Reader.push_number, "<B"),
    pickle.BININT2: (_Reader.push_number, "<H"),
    pickle.BINFLOAT: (_Reader.push_number, ">d"),
    pickle.LONG1: (_Reader.push_long, "<B"),
    pickle.SHORT_BINUNICODE: (_Reader.push_text, "<B"),
    pickle.BINUNICODE: (_Reader.push_text, "<I"),
    pickle.BINUNICODE8: (_Reader.push_text, "<Q"),
    pickle.SHORT_BINBYTES: (_Reader.push_bytes, "<B"),
    pickle.BINBYTES: (_Reader.push_bytes, "<I"),
    pickle.BINBYTES8: (_Reader.push_bytes, "<Q"),
    pickle.EMPTY_LIST: (_Reader.push_new, list),
    pickle.EMPTY_SET: (_Reader.push_new, list),
    pickle.EMPTY_DICT: (_Reader.push_new, UnhashedDict),
    pickle.EMPTY_TUPLE: (_Reader.push, ()),
    pickle.TUPLE1: (_Reader.push_tuple, 1),
    pickle.TUPLE2: (_Reader.push_tuple, 2),
    pickle.TUPLE3: (_Reader.push_tuple, 3),
    pickle.TUPLE: (_Reader.push_tuple, None),
    pickle.FROZENSET: (_Reader.frozen_set, None),
    pickle.APPEND: (_Reader.append, False),
    pickle.APPENDS: (_Reader.append, True),
    pickle.ADDITEMS: (_Reader.append, True),
    pickle.SETITEM: (_Reader.set_items, False),
    pickle.SETITEMS: (_Reader.set_items, True),
    pickle.MARK: (_Reader.mark, None),
    pickle.POP: (_Reader.pop, None),
    pickle.POP_MARK: (_Reader.pop_mark, None),
    pickle.DUP: (_Reader.duplicate, None),
    pickle.BINPUT: (_Reader.remember, "<B"),
    pickle.LONG_BINPUT: (_Reader.remember, "<I"),
    pickle.MEMOIZE: (_Reader.remember, None),
    pickle.BINGET: (_Reader.recall, "<B"),
    pickle.LONG_BINGET: (_Reader.recall, "<I"),
    pickle.GLOBAL: (_Reader.name_lines, None),
    pickle.STACK_GLOBAL: (_Reader.name_stack, None),
    pickle.REDUCE: (_Reader.call, None),
    pickle.NEWOBJ: (_Reader.call, None),
    pickle.NEWOBJ_EX: (_Reader.call_with_keywords, None),
    pickle.BINPERSID: (_Reader.persistent, None),
    pickle.BUILD: (_Reader.build, None),
}
