"""What the program relies on is set by it, not inherited: variables that steer its libraries from outside.

A notebook, a cluster or a shell profile exports some of them for other programs. Where a library takes the same as an
argument, it is given there; here is what only the environment can say. Standard library only, for it comes before all else.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from stages.errors import UserError

SET = {
    "MPLBACKEND": "svg",  # a notebook's is a module that is not there
    "USE_TORCH": "1",  # with these three diffusers looks for PyTorch
    "USE_TF": "0",
    "USE_FLAX": "0",
    "DIFFUSERS_SLOW_IMPORT": "0",
    "DIFFUSERS_ATTN_BACKEND": "native",
}
DROPPED = (
    "PYTHONWARNINGS",  # makes errors of warnings in libraries, and in the processes that are started
    "TERMINAL_WIDTH",  # Typer takes it for a number
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD",  # one of these two contradicts every call that says what it wants
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    "NVIDIA_TF32_OVERRIDE",  # --precision says it
    "RAY_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
    "RAY_OVERRIDE_RESOURCES",
    "RAY_RUNTIME_ENV_HOOK",
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORT = "/tmp"
ROOM = 20  # bytes of a folder below which Ray's sockets fit into the 107 that an address may have


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what libraries read, for this process and those it starts. Call before they are imported."""
    for name in DROPPED:
        environ.pop(name, None)
    environ.update(SET)
    names = ["no_proxy", "NO_PROXY", *(name for name in ("no_grpc_proxy",) if name in environ)]  # which gRPC prefers
    listed = [host for name in names for host in environ.get(name, "").split(",") if host]
    environ.update(dict.fromkeys(names, ",".join(dict.fromkeys([*listed, *LOOPBACK]))))  # no proxy is on this machine
    if any("error" in option for option in sys.warnoptions):  # what a library deprecates must not end a run
        sys.warnoptions[:] = [option for option in sys.warnoptions if "error" not in option]
        warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A new folder of this user's alone, until the block ends, whose path leaves room for sockets. UserError without one."""
    chosen = tempfile.gettempdir()
    parent = chosen if len(os.fsencode(chosen)) <= ROOM else SHORT
    try:
        folder = tempfile.TemporaryDirectory(prefix="fedktl-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"Sockets need a folder with a short path, and {parent} can't be written ({error.strerror}); set TMPDIR to "
            f"one of at most {ROOM} bytes."
        ) from error
    with folder as path:
        yield Path(path)
