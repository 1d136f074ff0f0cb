"""Snapshots that are hostile or broken, and the parts they are made of."""

import io
import struct
from pathlib import Path

import numpy as np
import torch

from stages.generators.stylegan.snapshots import pickles
from stages.generators.stylegan.snapshots.pickles import Call, Name, UnhashedDict
from tests.helpers.snapshot_writer import dumps
from tests.helpers.stylegan import FIXTURES

PLAIN = FIXTURES / "sg2_resnet_32_cond" / "network.pkl"


def records(path: Path) -> UnhashedDict:
    return pickles.read(memoryview(path.read_bytes()))[0]


def put(pairs, key, value):
    """Set pairs[key], which may be there."""
    pairs[:] = [(name, kept) for name, kept in pairs if name != key] + [(key, value)]


def get(record, *keys):
    """The value below nested dicts, and below modules by their children's names."""
    for key in keys:
        record = record.pairs if isinstance(record, Call) and record.pairs else record
        record = dict(record)[key]
    return record


def state(snapshot, *children) -> UnhashedDict:
    """The `__dict__` of a module of the generator."""
    record = get(snapshot, "G_ema")
    for child in children:
        record = get(get(record.arguments[0], "state"), "_modules", child)
    return get(record.arguments[0], "state")


def shell(marker: Path) -> Call:
    return Call(Name("os.system"), (f"touch {marker}",))


# Globals that would run something, with what they would be called with. `{}` is the file that would appear.
LIVE = {
    "os.system": ("touch {}",),
    "posix.system": ("touch {}",),
    "subprocess.call": (["touch", "{}"],),
    "builtins.exec": ("open('{}', 'w').close()",),
    "builtins.eval": ("open('{}', 'w').close()",),
    "__builtin__.eval": ("open('{}', 'w').close()",),
    "builtins.open": ("{}", "w"),
    "io.open": ("{}", "w"),
    "os.mkdir": ("{}",),
    "runpy.run_path": ("{}",),
    "timeit.timeit": ("open('{}', 'w').close()",),
    "cProfile.run": ("open('{}', 'w').close()",),
    "pickle.loads": (b"cos\nsystem\n(X\x01\x00\x00\x00xtR.",),
    "importlib.import_module": ("antigravity",),
    "webbrowser.open": ("file://{}",),
    "torch.load": ("{}",),
    "torch.hub.load": ("{}", "x"),
    "numpy.load": ("{}",),
    "numpy.testing._private.utils.runstring": ("open('{}', 'w').close()", UnhashedDict()),
    "torch_utils.persistence.import_hook": ("{}",),
    "collections.namedtuple": ("a", "b"),
    "functools.reduce": ("{}",),
    "dill._dill._create_code": ("{}",),
}


def called(path: str, marker: Path) -> Call:
    def filled(part):
        if isinstance(part, list):
            return [filled(item) for item in part]
        return part.replace("{}", str(marker)) if isinstance(part, str) else part

    return Call(Name(path), tuple(map(filled, LIVE[path])))


def in_attributes(snapshot, record):
    put(state(snapshot, "mapping"), "w_avg_beta", record)


def in_hooks(snapshot, record):
    get(state(snapshot, "synthesis"), "_forward_hooks").pairs.append(("0", record))


def in_arguments(snapshot, record):
    get(state(snapshot), "_init_kwargs").append(("z_dim", record))


def as_generator(snapshot, record):
    put(snapshot, "G_ema", record)


def as_module(snapshot, record):
    put(get(state(snapshot, "synthesis"), "_modules").pairs, "b8", record)


def as_tensor(snapshot, record):
    put(get(state(snapshot, "mapping"), "_buffers").pairs, "w_avg", record)


def as_parameter(snapshot, record):
    as_tensor(
        snapshot,
        Call(Name("torch._utils._rebuild_parameter"), (record, True, Call(Name("collections.OrderedDict"), ()))),
    )


def as_class_name(snapshot, record):
    put(get(snapshot, "G_ema").arguments[0], "class_name", record)


def as_state(snapshot, record):
    put(get(snapshot, "G_ema").arguments[0], "state", record)


PLACES = (
    in_attributes, in_hooks, in_arguments, as_generator, as_module, as_tensor, as_parameter, as_class_name, as_state,
)  # fmt: skip


def tensor(data: bytes, offset=0, shape=(2,), strides=(1,)) -> Call:
    storage = Call(Name("torch.storage._load_from_bytes"), (data,))
    return Call(Name("torch._utils._rebuild_tensor_v2"), (storage, offset, shape, strides, False, None))


def storage(values=(1.0, 2.0), kind="torch.FloatStorage", declared=None, rest=None, key="k") -> bytes:
    """torch's legacy format for one storage."""
    declared = len(values) if declared is None else declared
    parts = [0x1950A86A20F9469CFC6C, 1001, UnhashedDict([("little_endian", True)])]
    parts += [Call(Name("persistent_id"), ("storage", Name(kind), key, "cpu", declared, None)), ["k"]]
    elements = struct.pack("<q", declared) + np.float32(values).tobytes()
    return b"".join(map(dumps, parts)) + (elements if rest is None else rest)


def number(dtype, data: bytes) -> Call:
    return Call(Name("numpy.core.multiarray.scalar"), (dtype, data))


def array(shape, dtype, data: bytes) -> Call:
    made = Call(Name("numpy.core.multiarray._reconstruct"), (Name("numpy.ndarray"), (0,), b"b"))
    made.state = (1, shape, dtype, False, data)
    return made


def dtype(code: str, order: str = "<") -> Call:
    return Call(Name("numpy.dtype"), (code, False, True), (3, order, None, None, None, -1, -1, 0))


def altered(place, record):
    """A variant: the plain snapshot with `record` (made from the marker, if it is a function) at `place`."""

    def variant(marker: Path) -> bytes:
        snapshot = records(PLAIN)
        place(snapshot, record(marker) if callable(record) else record)
        return dumps(snapshot)

    return variant


def raw(data: bytes):
    return lambda marker: data


def cut(share: float):
    return lambda marker: PLAIN.read_bytes()[: int(len(PLAIN.read_bytes()) * share)]


def with_inside(snapshot_bytes: bytes, inside: bytes) -> bytes:
    """The pickle of a snapshot whose `w_avg_beta` is what the opcodes `inside` leave on the stack."""
    token = b"X\x05\x00\x00\x00TOKEN"
    assert snapshot_bytes.count(token) == 1
    return snapshot_bytes.replace(token, inside)


def opcodes(inside: bytes):
    return lambda marker: with_inside(altered(in_attributes, "TOKEN")(marker), inside)


def evil_storage(marker: Path) -> Call:
    return tensor(dumps(shell(marker)) + storage())


def zipped_storage() -> bytes:
    file = io.BytesIO()
    torch.save({"x": torch.zeros(2)}, file)
    return file.getvalue()


VARIANTS = {
    # code to run, as the whole file and wherever a value can be
    **{f"call of {path} as the file": lambda marker, path=path: dumps(called(path, marker)) for path in LIVE},
    **{f"call of {path} as an attribute": altered(in_attributes, lambda marker, path=path: called(path, marker)) for path in LIVE},
    **{f"os.system {place.__name__}": altered(place, shell) for place in PLACES},
    **{f"torch.hub.load {place.__name__}": altered(place, Call(Name("torch.hub.load"), ())) for place in PLACES},
    "os.system in the discriminator": altered(lambda snapshot, record: put(snapshot, "D", record), shell),
    "os.system thrown away": lambda marker: b"\x80\x04" + dumps(shell(marker))[2:-1] + b"0" + PLAIN.read_bytes()[2:],
    "os.system as a key": altered(lambda snapshot, record: snapshot.append((record, 1)), shell),
    "os.system in a storage": altered(as_tensor, evil_storage),
    "os.system by dill": altered(in_attributes, lambda marker: Call(
        Call(Name("dill._dill._get_attr"), (Call(Name("dill._dill._import_module"), ("os",)), "system")), (f"touch {marker}",))),
    "os.system by getattr": altered(in_attributes, lambda marker: Call(
        Call(Name("builtins.getattr"), (Call(Name("dill._dill._import_module"), ("os",)), "system")), (f"touch {marker}",))),
    "os.system by protocol 0": lambda marker: f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
    "os.system by INST": lambda marker: b"\x80\x02" + f"(S'touch {marker}'\nios\nsystem\n.".encode(),
    "os.system by OBJ": lambda marker: b"\x80\x02" + b"(cos\nsystem\nX\x04\x00\x00\x00abcdo.",
    "a module with a side effect": lambda marker: b"\x80\x04" + b"cantigravity\nfly\n.",
    "a call of a dict": opcodes(b"})R"),
    "a call of a call": opcodes(b"cbuiltins\nset\n)R)R"),
    "a set of something else": opcodes(b"cbuiltins\nset\nX\x01\x00\x00\x00a\x85R"),
    "OrderedDict of pairs": opcodes(b"ccollections\nOrderedDict\n](](KaKbee\x85R"),
    # state where there is none to set
    "state for a list": opcodes(b"]}b"),
    "state for a function": opcodes(b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b"),
    "state for an int": opcodes(b"K\x01}b"),
    "state twice": opcodes(b"ctorch.nn.modules.sparse\nEmbedding\n)\x81}b}b"),
    # no pickle, or only part of one
    "empty": raw(b""),
    "text": raw(b"a snapshot of a generator"),
    "HTML instead of a download": raw(b"<!DOCTYPE html><title>Sign in</title>"),
    "a zip file": raw(zipped_storage()),
    "zeros": raw(bytes(1000)),
    "a pickle of nothing": raw(b"\x80\x04."),
    "a pickle without an end": raw(b"\x80\x04N"),
    **{f"cut at {share:.0%}": cut(share) for share in (0.0001, 0.01, 0.3, 0.6, 0.9, 0.9999)},
    "an unknown opcode": opcodes(b"\xff"),
    "a registered extension": opcodes(b"\x82\x01"),
    "an out-of-band buffer": opcodes(b"\x97"),
    "the stack taken below its bottom": raw(b"\x80\x04" + b"0" * 10 + b"."),
    "a mark that is not there": raw(b"\x80\x04t."),
    "a memo that is not there": opcodes(b"h\xee"),
    "items for a tuple": opcodes(b")(KaKbu"),
    "an odd number of items": opcodes(b"}(KaKbKcu"),
    "appending to a dict": opcodes(b"}Kaa"),
    "a name of numbers": opcodes(b"KaKb\x93"),
    "a name without an end": opcodes(b"c" + b"a" * 5000),
    "text that is not UTF-8": opcodes(b"X\x02\x00\x00\x00\xff\xfe"),
    "bytes as an attribute": opcodes(b"C\x01a"),
    # more than the file can bear out
    "bytes of 2^62": opcodes(b"\x8e" + struct.pack("<Q", 1 << 62)),
    "text of 2^63": opcodes(b"\x8d" + struct.pack("<Q", 1 << 63)),
    "bytes of 4 GB": opcodes(b"B\xff\xff\xff\xff"),
    "nested calls": opcodes(b"cbuiltins\nset\nq\x07" + b"h\x07" * 50_000 + b")" + b"R\x85" * 50_000 + b"R"),
    "very many nested lists": opcodes(b"]" * 100_000 + b"a" * 99_999),
    "a tensor of 10 000 dimensions": altered(as_tensor, tensor(storage(), shape=(1,) * 10_000, strides=(1,) * 10_000)),
    "a tensor with a stride of 2^70": altered(as_tensor, tensor(storage(), shape=(1,), strides=(1 << 70,))),
    "an empty tensor of 2^70": altered(as_tensor, tensor(storage(), shape=(0, 1 << 70), strides=(1, 1))),
    "an empty array of 2^70": altered(in_attributes, array((0, 1 << 70), dtype("f8"), b"")),
    "more than a million instructions": opcodes(b"N0" * 500_001),
    "very many nested tuples": opcodes(b")" + b"\x85" * 100_000),
    "a list in itself": opcodes(b"]q\x07h\x07a"),
    "a dict in itself": opcodes(b"}q\x07X\x01\x00\x00\x00ah\x07s"),
    "a module in itself": lambda marker: looped_module(),
    "a billion laughs": lambda marker: b"\x80\x04" + laughing(),
    "a storage that declares 2^40 numbers": altered(as_tensor, tensor(storage(declared=1 << 40))),
    "a storage that declares -1 numbers": altered(as_tensor, tensor(storage(declared=-1))),
    "a storage cut short": altered(as_tensor, tensor(storage()[:-1])),
    "a storage of nothing": altered(as_tensor, tensor(b"")),
    "a storage of whole numbers": altered(as_tensor, tensor(storage(kind="torch.LongStorage"))),
    "a storage of a type of its own": altered(as_tensor, tensor(storage(kind="evil.FloatStorage"))),
    "a storage with a number for its key": altered(as_tensor, tensor(storage(key=1))),
    "a storage with wrong magic": altered(as_tensor, tensor(storage().replace(b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"))),
    "a storage in torch's newer format": altered(as_tensor, tensor(zipped_storage())),
    "a tensor beyond its storage": altered(as_tensor, tensor(storage(), shape=(3,))),
    "a tensor that begins beyond it": altered(as_tensor, tensor(storage(), offset=1)),
    "a tensor that repeats one number": altered(as_tensor, tensor(storage(), shape=(1 << 40,), strides=(0,))),
    "a tensor of negative size": altered(as_tensor, tensor(storage(), shape=(-2,))),
    "a tensor of text size": altered(as_tensor, tensor(storage(), shape=("2",))),
    "a tensor with a stride too few": altered(as_tensor, tensor(storage(), shape=(2, 1))),
    "a tensor that begins at a text": altered(as_tensor, tensor(storage(), offset="0")),
    "one storage again and again": lambda marker: repeated_storage(),
    "an array of 2^40": altered(in_attributes, array((1 << 40,), dtype("f8"), b"")),
    "an array of negative size": altered(in_attributes, array((-1, -1), dtype("f8"), bytes(8))),
    "an array of objects": altered(in_attributes, array((1,), dtype("O8", "|"), bytes(8))),
    "an array whose type is text": altered(in_attributes, array((1,), "f8", bytes(8))),
    "an array of a torn number": altered(in_attributes, array((1,), dtype("f8"), bytes(7))),
    "an array of records": altered(in_attributes, array((1,), dtype("V8", "|"), bytes(8))),
    "a number of no size": altered(in_attributes, number(dtype("f0"), b"")),
    "a number of many": altered(in_attributes, number(dtype("f8"), bytes(16))),
    "a number of a type with fields": altered(in_attributes, number(Call(Name("numpy.dtype"), ("V8", False, True), (3, "|", None, ("a",), UnhashedDict(), 8, 1, 0)), bytes(8))),
    "one array again and again": opcodes(
        b"](" + dumps(array((100_000,), dtype("i1"), bytes(100_000)))[2:-1] + b"q\x07" + b"h\x07" * 100_000 + b"e"
    ),
    # a pickle, but of no generator
    "no dict": raw(dumps([1, 2, 3])),
    "no G_ema": raw(dumps(UnhashedDict([("G", None)]))),
    "an empty G_ema": altered(as_generator, None),
    "weights for a G_ema": altered(as_generator, UnhashedDict([("synthesis.b4.const", tensor(storage()))])),
    "a G_ema of torch": altered(as_generator, Call(Name("torch.nn.modules.linear.Linear"), ())),
    "a TensorFlow snapshot": raw(b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81."),
    "keys that are numbers": altered(lambda snapshot, _: state(snapshot).append((1, 2)), None),
    "a part that is a list": altered(lambda snapshot, _: put(state(snapshot), "_parameters", []), None),
}  # fmt: skip


def looped_module() -> bytes:
    """A persistent object whose `_modules` hold it."""
    inner = b"}(" + _text("class_name") + _text("A") + _text("state") + b"}(" + _text("_modules") + b"}q\x01"
    return (
        b"\x80\x04}" + _text("G_ema") + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
        + inner + b"uu\x85Rq\x02" + b"0h\x01" + _text("child") + b"h\x02s0" + b"h\x02s."
    )  # fmt: skip


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def laughing() -> bytes:
    """The plain snapshot with a list of 2^60 parts, each level kept in the memo and referred to twice."""
    level = _text("ha")
    for index in range(60):
        level = b"](" + level + b"h" + bytes([index]) + b"e" if index else b"](" + level + b"e"
        level += b"q" + bytes([index + 1])
    return with_inside(altered(in_attributes, "TOKEN")(Path("x")), level)[2:]


def repeated_storage() -> bytes:
    """50 000 buffers that all refer to one storage of 100 000 numbers: 20 GB from 2 MB."""
    snapshot = records(PLAIN)
    as_tensor(snapshot, "TOKEN")
    head, tail = dumps(snapshot).split(_text("w_avg") + _text("TOKEN"))
    first = dumps(tensor(storage(np.zeros(100_000)), shape=(100_000,)))[2:-1]
    return head + _text("w_avg") + first + b"q\x07" + b"".join(_text(f"b{i}") + b"h\x07" for i in range(50_000)) + tail
