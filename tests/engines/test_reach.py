"""Who answers at a SuperLink's address, over real sockets: nobody, somebody without TLS, another authority, a proxy."""

import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

from stages.engines.flower.deployment import deployed
from stages.engines.flower.fleet import key_pair
from stages.engines.flower.reach import absent, wait
from stages.environment import settle
from stages.errors import UserError
from tests.helpers.federations import certificates, free_port


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        self.server.asked.append(self.path)
        self.send_error(401)

    def log_message(self, *given):
        pass


@contextmanager
def listening(folder=None, status=204, port=0):
    """A server on loopback, with the certificate in `folder`; gives its address and the paths that it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Answering)
    server.status, server.asked = status, []
    if folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *given: None  # a client that hangs up
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", server.asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """Two folders, each with an authority and a server's certificate from it."""
    folders = [tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")]
    for folder in folders:
        certificates(folder)
    return folders


def test_only_a_server_that_the_authority_signed_is_reached(authorities):
    ours, theirs = authorities
    with listening(ours) as (address, asked):
        assert absent(address, str(ours / "ca.pem")) == "" and asked == ["/health"]
        with pytest.raises(UserError, match=r"can\'t be verified with .*theirs.*/ca\.pem .*CERTIFICATE_VERIFY_FAILED"):
            absent(address, str(theirs / "ca.pem"))
        with pytest.raises(UserError, match="uses TLS; add `root_certificates`"):
            absent(address, None)
        with pytest.raises(UserError, match=r"server\.key holds no certificates in PEM format"):
            absent(address, str(ours / "server.key"))
    with listening() as (address, _):
        assert absent(address, None) == ""
        with pytest.raises(UserError, match=r"does not use TLS .*leave out `root_certificates`"):
            absent(address, str(ours / "ca.pem"))


def test_a_certificate_is_as_good_with_every_python(authorities, monkeypatch):
    """From 3.13 on, contexts are strict, which Flower's connection is not: these certificates don't name their authority's key."""
    made = ssl.create_default_context

    def strict(**given):
        context = made(**given)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr("stages.engines.flower.reach.ssl.create_default_context", strict)
    with listening(authorities[0]) as (address, _):
        assert absent(address, str(authorities[0] / "ca.pem")) == ""


def test_a_node_waits_until_somebody_answers_and_says_so_once(monkeypatch):
    monkeypatch.setattr("stages.engines.flower.reach.PAUSE", 0.01)
    port, said = free_port(), []
    thread = threading.Thread(target=wait, args=(f"127.0.0.1:{port}", None, said.append))
    thread.start()
    while not said:
        thread.join(0.05)
    with listening(port=port):
        thread.join(10)
    (note,) = said
    assert (
        not thread.is_alive()
        and note.startswith(f"No SuperLink answers at 127.0.0.1:{port} (")
        and note.endswith("Waiting for it.")
    )


def test_a_node_that_is_not_taken_tries_again_for_a_while(tmp_path):
    """As a server that was started again is told of the keys only after it listens."""
    code = (
        "import sys; from stages.engines.flower import fleet; fleet.ADMISSION, fleet.AGAIN = 0.5, 0.1\n"
        "fleet.serve(sys.argv[1], None, None, None, print)"
    )
    with listening() as (address, asked):
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("does not accept this node") == 1 and "Trying again for 0.5 seconds" in done.stdout
    assert "UserError: The SuperLink at" in done.stderr and "Exit Code" not in done.stderr
    assert len([path for path in asked if path != "/health"]) > 2


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:0", "host:99999", "a b:80", "http://host:80", ":80"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(UserError, match="is not an address; write HOST:PORT"), deployed(address, None):
        pass


def test_the_server_does_not_wait(monkeypatch):
    address = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(UserError, match=f"No SuperLink answers at {address} .*fedktl federation up"),
        deployed(address, None),
    ):
        pass


def test_loopback_is_reached_around_a_proxy_and_elsewhere_the_message_names_it(monkeypatch):
    with listening(status=502) as (proxy, asked), listening() as (address, _):
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:secret@{proxy}")
        settle()
        assert absent(address, None) == "" and not asked
        why = absent("server.example:8000", None)
        assert asked == ["http://server.example:8000/health"]
        assert why == (
            f"No SuperLink answers at server.example:8000 through the proxy {proxy} of this environment "
            "(NO_PROXY=server.example would bypass it) (HTTP 502)."
        )
    why = absent("server.example:8000", None)  # the proxy is gone
    assert f"through the proxy {proxy}" in why and "secret" not in why


def test_a_key_that_is_none_is_named(tmp_path, authorities):
    assert len(key_pair(authorities[0] / "a.key")) == 2
    with pytest.raises(UserError, match=r"a\.pub is not an OpenSSH private key"):
        key_pair(authorities[0] / "a.pub")
