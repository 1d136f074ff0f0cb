"""A folder somewhere else: in an object store (S3, GCS, Azure), on a web server, or on a disk that is mounted here.

The only module that knows obstore. Credentials come from the environment, as obstore documents, and no message
shows them: obstore's own messages may hold a URL with a key in it, so only the kind of an error is passed on.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stages.errors import UserError, printable

PIECE = 1 << 20  # bytes that are written at once
PATIENCE = {"connect_timeout": "10s", "read_timeout": "2m", "timeout": "1h"}
RETRIES = {"max_retries": 5, "retry_timeout": timedelta(minutes=1)}
CREDENTIALS = ("169.254.169.254", "Account must be specified", "Unauthenticated")  # the first: a cloud machine's own
STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b")


class Remote:
    """The files below a URL, by their paths with `/`."""

    def __init__(self, url: str, create: bool = False):
        """`create` makes the folder if it is one on a disk."""
        self._shown = without_secrets(url)
        self._store = self._opened(url if "://" in url else Path(url).absolute().as_uri(), create)

    def __str__(self) -> str:
        return self._shown

    def _opened(self, url: str, create: bool) -> Any:
        try:
            from obstore.store import from_url
        except ImportError:
            raise UserError(
                f"{self} needs the package obstore; install it with: pip install 'fedktl[remote]'"
            ) from None
        scheme = url.partition("://")[0].lower()
        with self._understood():
            if scheme == "file":
                return from_url(url, mkdir=create)
            plain = scheme == "http" or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
            options: Any = {"client_options": {**PATIENCE, "allow_http": plain}, "retry_config": RETRIES}
            return from_url(url, **options)

    @property
    def writable(self) -> bool:
        """False for a plain web server."""
        from obstore.store import HTTPStore

        return not isinstance(self._store, HTTPStore)

    def read(self, name: str, most: int) -> bytes:
        """A whole file; UserError if it has more than `most` bytes."""
        return b"".join(self._pieces(name, most))

    def fetch(self, name: str, target: Path, most: int) -> str:
        """Write a file of at most `most` bytes to `target`; its SHA-256."""
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for piece in self._pieces(name, most):
                digest.update(piece)
                file.write(piece)
            file.flush()
            if hasattr(os, "posix_fadvise"):  # starts writing to disk now, so that syncing at the end takes less time
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return digest.hexdigest()

    def _pieces(self, name: str, most: int) -> Iterator[Any]:
        import obstore

        got = 0
        with self._understood(name):
            stream = iter(obstore.get(self._store, name).stream(min_chunk_size=PIECE))
        while True:
            with self._understood(name):
                piece = next(stream, None)
            if piece is None:
                return
            got += len(piece)
            if got > most:
                raise UserError(f"{self}/{name} is larger than the {most} bytes that it should have.")
            yield piece

    def send(self, name: str, content: Path | bytes) -> None:
        """Bytes go in one request, a file in as many as its size needs."""
        import obstore

        with self._understood(name):
            obstore.put(self._store, name, content, use_multipart=False if isinstance(content, bytes) else None)

    def delete(self, name: str) -> None:
        import obstore

        with self._understood(name):
            obstore.delete(self._store, name)

    def listed(self) -> Iterator[tuple[str, int]]:
        """Every file and its size."""
        import obstore

        pages = iter(obstore.list(self._store))
        while True:
            with self._understood():
                page = next(pages, None)
            if page is None:
                return
            for file in page:
                yield file["path"], file["size"]

    @contextmanager
    def _understood(self, name: str = "") -> Iterator[None]:
        """Turn what obstore raises into a sentence without secrets; `from None`, because tracebacks are printed too."""
        where = f"{self}/{name}" if name else str(self)
        try:
            yield
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise UserError(f"There is no {where}." if missing else f"'{self}' is not a URL for artifacts.") from None
        except Exception as error:
            raise UserError(f"{where} {_why(error)}") from None


def _why(error: Exception) -> str:
    said = f"{type(error).__name__}: {error}"
    status = STATUS.search(said)
    if any(sign in said for sign in CREDENTIALS):
        return "needs credentials; set the environment variables of its provider (AWS_*, AZURE_*, GOOGLE_*)."
    if "PermissionDenied" in said or (status and status[1] in ("401", "403")):
        return "can't be accessed with these credentials."
    if "Unable to recognise" in said:
        return "is not a URL for artifacts; write s3://, gs://, az://, https:// or a folder."
    if "builder error" in said:
        return "is only reached without TLS if AWS_ALLOW_HTTP=true is set."
    if (status and status[1] == "404") or "canonicalize" in said:
        return "does not exist."
    answer = f" (it answers {status[1]})" if status else ""
    return f"can't be reached{answer}; the same command continues once it can be."


def without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment."""
    if "://" not in url:
        return printable(url, 300).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError:
        return printable(url.partition("://")[0], 20) + "://..."
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/"), 300)
