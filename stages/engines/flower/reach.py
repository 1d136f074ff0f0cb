"""Whether a SuperLink answers at an address, and if not, why: certificates, proxies, nobody there."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from urllib.request import getproxies, proxy_bypass

from stages.errors import UserError, printable

PAUSE = 1.0  # seconds between tries
PATIENCE = 10.0  # seconds for one


def parsed(address: str) -> tuple[str, int]:
    """Host and port; UserError for anything but HOST:PORT."""
    host, _, port = address.rpartition(":")
    named = re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host)
    if not (named and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise UserError(f"'{printable(address, 80)}' is not an address; write HOST:PORT.")
    return host.strip("[]"), int(port)


def wait(address: str, root_certificates: str | None, note: Callable[[str], None]) -> None:
    """Return once a SuperLink answers. UserError for a problem that waiting does not solve."""
    said = ""
    while why := absent(address, root_certificates):
        if why != said:
            note(f"{why} Waiting for it.")
        said = why
        time.sleep(PAUSE)


def absent(address: str, root_certificates: str | None) -> str:
    """Why no SuperLink answers at the address now; empty if one does. UserError for a problem that waiting does not solve."""
    import httpx

    tls, proxy = root_certificates is not None, proxy_of(address, root_certificates is not None)
    way = (
        f" through the proxy {proxy} of this environment (NO_PROXY={parsed(address)[0]} would bypass it)"
        if proxy
        else ""
    )
    try:
        status = asked(address, authority(root_certificates) if root_certificates else None)
    except httpx.HTTPError as error:
        why = printable(str(error) or type(error).__name__)
        if "CERTIFICATE_VERIFY_FAILED" in why:
            raise UserError(
                f"The certificate of the SuperLink at {address} can't be verified with {root_certificates} ({why})."
            ) from error
        if tls and "SSL" in why:
            raise UserError(
                f"The server at {address}{way} does not use TLS ({why}); leave out `root_certificates`."
            ) from error
        if not tls and speaks_tls(address):
            raise UserError(f"The SuperLink at {address} uses TLS; add `root_certificates`.") from error
        return f"No SuperLink answers at {address}{way} ({why})."
    if status >= 500 or (proxy and status in (401, 403, 407)):
        return f"No SuperLink answers at {address}{way} (HTTP {status})."
    return ""


def asked(address: str, context: ssl.SSLContext | None) -> int:
    """The HTTP status of an answer; with a context over TLS. Raises HTTPError if there is none."""
    import httpx

    with httpx.Client(verify=context or True, timeout=PATIENCE) as client:
        status: int = client.get(f"{'https' if context else 'http'}://{address}/health").status_code
    return status


def speaks_tls(address: str) -> bool:
    import httpx

    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        return asked(address, anybody) > 0
    except httpx.HTTPError:
        return False


def authority(root_certificates: str) -> ssl.SSLContext:
    """What trusts this authority as Flower's connection does; from Python 3.13 on, Python's own asks for more."""
    try:
        context = ssl.create_default_context(cafile=root_certificates)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{root_certificates} holds no certificates in PEM format ({error}).") from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def proxy_of(address: str, tls: bool) -> str | None:
    """The proxy that the environment names for this address; without the password that it may hold."""
    found = getproxies()
    proxy = found.get("https" if tls else "http") or found.get("all")
    if proxy is None or proxy_bypass(parsed(address)[0]):
        return None
    return printable(proxy.rpartition("@")[2])
