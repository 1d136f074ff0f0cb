"""The inverse of stages.generators.stylegan.snapshots.pickles: inert records to pickle bytes, so that tests can alter snapshots."""

import struct

from stages.generators.stylegan.snapshots.pickles import Call, Name, UnhashedDict


def dumps(record) -> bytes:
    return b"\x80\x02" + b"".join(_written(record)) + b"."


def _written(record):
    match record:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if record else b"\x89"
        case int():
            data = record.to_bytes(record.bit_length() // 8 + 1, "little", signed=True)
            yield b"\x8a" + bytes([len(data)]) + data
        case float():
            yield b"G" + struct.pack(">d", record)
        case str():
            yield b"X" + struct.pack("<I", len(record.encode())) + record.encode()
        case bytes() | memoryview():
            yield b"B" + struct.pack("<I", len(record)) + bytes(record)
        case Name(path):
            module, _, attribute = path.rpartition(".")
            yield f"c{module}\n{attribute}\n".encode()
        case Call(Name("persistent_id"), arguments):
            yield from (*_written(arguments), b"Q")
        case Call():
            yield from (*_written(record.function), *_written(record.arguments), b"R")
            yield from _items(record.pairs)
            if record.state is not None:
                yield from (*_written(record.state), b"b")
        case UnhashedDict():
            yield from (b"}", *_items(record))
        case list():
            yield from (b"](", *(part for item in record for part in _written(item)), b"e")
        case tuple():
            yield from (b"(", *(part for item in record for part in _written(item)), b"t")


def _items(pairs):
    if pairs:
        yield from (b"(", *(part for pair in pairs for item in pair for part in _written(item)), b"u")
