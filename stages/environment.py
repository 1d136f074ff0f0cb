"""Environment variables that control libraries are set by the program, not inherited.

A notebook, a cluster or a shell profile may export some of them for other programs. Whatever a library takes as an argument
is passed there; this is for what only the environment can set. Standard library only, since it runs before everything else.
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
    "MPLBACKEND": "svg",  # a notebook exports one that may not be installed
    "USE_TORCH": "1",  # these three make diffusers use PyTorch
    "USE_TF": "0",
    "USE_FLAX": "0",
    "DIFFUSERS_SLOW_IMPORT": "0",
    "DIFFUSERS_ATTN_BACKEND": "native",
}
DROPPED = (
    "PYTHONWARNINGS",  # can turn warnings into errors, here and in child processes
    "TERMINAL_WIDTH",  # Typer fails if it is not a number
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD",  # these two override the argument of every call
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    "NVIDIA_TF32_OVERRIDE",  # --precision sets it
    "RAY_ADDRESS",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_NAMESPACE",
    "RAY_OVERRIDE_RESOURCES",
    "RAY_RUNTIME_ENV_HOOK",
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORT = "/tmp"
ROOM = 20  # bytes of a folder's path that leave enough for Ray's sockets, whose addresses have at most 107


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what libraries read, for this process and its children. Call before importing them."""
    for name in DROPPED:
        environ.pop(name, None)
    environ.update(SET)
    names = ["no_proxy", "NO_PROXY", *(name for name in ("no_grpc_proxy",) if name in environ)]  # gRPC prefers this one
    listed = [host for name in names for host in environ.get(name, "").split(",") if host]
    environ.update(dict.fromkeys(names, ",".join(dict.fromkeys([*listed, *LOOPBACK]))))  # never through a proxy
    if any("error" in option for option in sys.warnoptions):  # a library's deprecation must not end a run
        sys.warnoptions[:] = [option for option in sys.warnoptions if "error" not in option]
        warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A new private folder, until the block ends, with a path short enough for sockets. UserError if there is none."""
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
