"""Arrays in NumPy's format, and headers that lie."""

import io

import numpy as np


def saved(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(shape="(1,)", kind="'<f4'", rest=bytes(4), text=None) -> bytes:
    text = text or f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + rest


HOSTILE = {
    "brackets": headed(text="[" * 9000),
    "parentheses": headed(text="(" * 9000),
    "minuses": headed(text="-" * 9000 + "1"),
    "a call": headed(text="__import__('os').system('false')"),
    "2^70 numbers": headed(f"({2**70},)"),
    "none of 2^70": headed(f"(0, {2**70})", rest=b""),
    "a negative number": headed("(-1,)"),
    "terabytes": headed(f"({2**40},)"),
    "100 axes": headed("(" + "1," * 100 + ")"),
    "objects": headed(kind="'|O'", rest=bytes(8)),
    "records": headed(kind="[('a', '<f4')]"),
    "texts": headed(kind="'<U1'"),
    "numbers too few": headed("(2,)"),
    "numbers too many": headed("(1,)", rest=bytes(8)),
    "a header cut short": headed()[:40],
    "another version": headed().replace(b"\x01\x00", b"\x09\x00", 1),
    "nothing": b"",
    "a pickle": b"\x80\x04cos\nsystem\n(X\x05\x00\x00\x00falsetR.",
}
