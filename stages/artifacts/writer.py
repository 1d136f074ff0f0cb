"""Writing an artifact: a Zarr group in a hidden folder, until it is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages.artifacts import seal

if TYPE_CHECKING:
    import numpy as np
    import zarr

    from stages.artifacts.refs import Ref
    from stages.artifacts.store import Artifact

CHUNK_BYTES = 4 << 20


@cache
def library() -> Any:
    """Zarr with its defaults: its environment variables and configuration files could change the format, or stall it."""
    import zarr

    zarr.config.refresh(paths=[], env={})
    return zarr


def opened(folder: Path, mode: str) -> zarr.Group:
    """The group in a folder, to read (r) or new (w)."""
    open_group = library().open_group
    from stages.artifacts.local_files import LocalFiles

    group: zarr.Group = open_group(LocalFiles(folder, read_only=mode == "r"), mode=mode, zarr_format=3)
    return group


class Source(Protocol):
    """What something is made from: an artifact here, or one on other machines."""

    @property
    def identity(self) -> dict[str, str]: ...


@dataclass
class Writer:
    """An artifact being written: a Zarr group in a hidden folder, and the attributes it will carry."""

    path: Path
    attributes: dict[str, Any]
    _move: Callable[[Path], Artifact]  # from the hidden folder to its place in the store
    _group: Any = field(init=False)
    _artifact: Artifact | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._group = opened(self.path, "w")

    @property
    def ref(self) -> Ref | None:
        """The reference of the artifact, once it is published."""
        return self._artifact.ref if self._artifact else None

    def publish(self) -> Artifact:
        """Seal the artifact and make it appear in the store; nothing more can be written."""
        if self._artifact is None:
            seal.close(self.path, self.attributes)
            self._artifact = self._move(self.path)
        return self._artifact

    def empty(self, name: str, shape: tuple[int, ...], dtype: str) -> zarr.Array[Any]:
        """An array to fill piece by piece; its chunks are about 4 MB and carry a CRC32C."""
        import numpy as np
        from zarr.codecs import Crc32cCodec, ZstdCodec

        row = max(1, int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize)
        rows = max(1, min(shape[0] if shape else 1, CHUNK_BYTES // row))
        chunks = (rows, *(max(1, side) for side in shape[1:])) if shape else ()
        array: zarr.Array[Any] = self._group.create_array(
            name, shape=shape, dtype=dtype, chunks=chunks, compressors=[ZstdCodec(level=3), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )  # fmt: skip
        return array

    def chunk_rows(self, name: str) -> int:
        return int(self._group[name].chunks[0])

    def array(self, name: str, values: np.ndarray) -> None:
        array = self.empty(name, values.shape, values.dtype.str)
        if values.size:
            array[...] = values
