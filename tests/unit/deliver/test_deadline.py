"""One limit on the whole of a POST, wherever it is that the other side takes its time."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from optly_celery.deliver import connection
from optly_celery.deliver.connection import Exchange
from optly_celery.deliver.transport import Transport
from optly_celery.errors import PermanentDeliveryError, TransientDeliveryError
from optly_celery.event.event import Event

from ...support import US_URL, params_of
from .raw_server import RawServer, drip, endless

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
AWAY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LONG_S = 30.0
"""How long each of these would take at least: in steps of which none is longer than it may be."""
IN_TIME_S = 10.0

SLOW_ANSWERS = {
    "status line": [drip(b"HTTP/1.1 204 " + b"x" * 600)],
    "headers": [TAKEN[:-2], endless(b"X-A: b\r\n", 0.05)],
    "interim answers": [endless(b"HTTP/1.1 100 Continue\r\n\r\n", 0.5)],
    "nothing": [],
}


@pytest.mark.parametrize("script", SLOW_ANSWERS.values(), ids=list(SLOW_ANSWERS))
@pytest.mark.parametrize("posts_before", [0, 1])
def test_an_answer_over_tls_ends_in_time(server_tls, trusted, script, posts_before):
    """On a new connection, and on one that has been used."""
    with RawServer(*[[TAKEN]] * posts_before, script, [AWAY], tls=server_tls) as server:
        transport = _transport(_https(server))
        for _ in range(posts_before):
            assert _result(transport, deadline_s=10.0) == "delivered"

        assert _in_time(transport) == "timeout"

        assert _result(transport, deadline_s=10.0) == "http_503"


def test_a_handshake_that_does_not_end_ends_in_time(trusted):
    """Bytes of a record that is announced come one by one."""
    with RawServer([drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 600)]) as server:
        server.read = False

        assert _in_time(_transport(_https(server))) == "timeout"


@pytest.mark.parametrize("script", SLOW_ANSWERS.values(), ids=list(SLOW_ANSWERS))
def test_a_proxy_that_opens_no_tunnel_ends_in_time(monkeypatch, script):
    """It is asked to, and takes its time."""
    opens = [s.replace(b"204 No Content", b"200 OK") if isinstance(s, bytes) else s for s in script]
    with RawServer(opens) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)

        assert _in_time(_transport("https://logx.optimizely.com/")) == "timeout"

        assert server.requests[0][0].startswith(b"CONNECT logx.optimizely.com:443")


@pytest.mark.parametrize("more", [[], [drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 600)]])
def test_a_handshake_through_a_tunnel_ends_in_time(monkeypatch, more):
    """What came before it has used up a part of the time."""
    with RawServer([drip(OPENED, 0.01), *more]) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)

        transport = _transport("https://logx.optimizely.com/", timeout_s=(LONG_S, LONG_S))

        assert _in_time(transport, deadline_s=0.8) == "timeout"


@pytest.mark.parametrize("script", SLOW_ANSWERS.values(), ids=list(SLOW_ANSWERS))
def test_an_answer_through_a_proxy_ends_in_time(monkeypatch, script):
    """In a tunnel, and without."""
    with RawServer(script) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)

        assert _in_time(_transport("http://collector.invalid/")) == "timeout"


def test_an_interim_answer_of_a_proxy_is_read_past(monkeypatch, server_tls, trusted):
    """Before the tunnel is there as well."""

    def tunnel(client):
        with server_tls.wrap_socket(client, server_side=True) as inner:
            inner.recv(65_536)
            inner.recv(65_536)
            inner.sendall(TAKEN)

    with RawServer([b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\n" + OPENED, tunnel]) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)

        assert _result(_transport("https://localhost/"), deadline_s=10.0) == "delivered"


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_reads_slowly_ends_in_time(server_tls, trusted, tls):
    """A body of megabytes fits into no buffer, and each part of it is taken within its own time."""

    def sip(client):
        while client.recv(1_000):
            threading.Event().wait(0.02)

    with RawServer([sip], tls=server_tls if tls else None) as server:
        server.read = False
        target = _https(server) if tls else server.url

        assert _in_time(_transport(target), params=params_of(big="x" * 3_000_000)) == "timeout"


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_body_arrives_whole(server_tls, trusted, tls):
    """It is sent piece by piece, each with what time is left."""
    params = params_of(big="x" * 2_999_999)
    with RawServer([TAKEN], tls=server_tls if tls else None) as server:
        result = _result(
            _transport(_https(server) if tls else server.url), deadline_s=30.0, params=params
        )

        assert result == "delivered"
        assert server.requests[0][1] == Event.of(US_URL, params).body.encode()


def test_many_addresses_of_one_host_end_in_time(monkeypatch):
    """None of them answers, and each may take the time for connecting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        found = socket.getaddrinfo("127.0.0.1", port, 0, socket.SOCK_STREAM) * 100
        monkeypatch.setattr(connection.socket, "getaddrinfo", lambda *_: list(found))

        assert _in_time(_transport(f"http://many.invalid:{port}/"), timeout_s=(0.3, 5)) == "timeout"

        for sock in waiting:
            sock.close()


def test_the_next_address_is_tried_where_one_refuses(monkeypatch, collector):
    """As it was: a host has more than one for that."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = ("127.0.0.1", closed.getsockname()[1])
        good = ("127.0.0.1", int(collector.url.split(":")[2].split("/")[0]))
        rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (refusing, good)]
        monkeypatch.setattr(connection.socket, "getaddrinfo", lambda *_: list(rows))

        assert _result(_transport(collector.url), deadline_s=10.0) == "delivered"


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError("no resolver")],
)
def test_a_host_that_cannot_be_looked_up_is_transient(monkeypatch, error):
    """The resolver is away, or the name does not exist yet."""

    def fail(*_):
        raise error

    monkeypatch.setattr(connection.socket, "getaddrinfo", fail)

    assert _result(_transport("http://nowhere.invalid/"), deadline_s=5.0) == "connection_error"


def test_an_exchange_gives_each_step_what_is_left():
    """And no step more than it had."""

    class Sock:
        timeout = None

        def gettimeout(self):
            return self.timeout

        def settimeout(self, seconds):
            self.timeout = seconds

    now = [0.0]
    exchange, sock = Exchange(lambda: now[0]), Sock()
    exchange.begin(10.0)

    exchange.limit(sock)
    assert sock.timeout == 10.0
    sock.timeout = 3.0
    exchange.limit(sock)
    assert sock.timeout == 3.0
    now[0] = 8.0
    exchange.limit(sock)
    assert (sock.timeout, exchange.is_over()) == (2.0, False)
    now[0] = 10.0
    with pytest.raises(TimeoutError):
        exchange.limit(sock)
    assert exchange.is_over()


GREEN = """
    from gevent import monkey
    monkey.patch_all()
    import os, ssl, sys, time
    import gevent
    sys.path.insert(0, os.getcwd())
    from tests.unit.deliver.raw_server import RawServer, drip, endless
    from tests.unit.deliver.test_deadline import SLOW_ANSWERS, TAKEN, _https, _result, _transport
    certificate, key = sys.argv[1:]
    os.environ["REQUESTS_CA_BUNDLE"] = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    record = drip(b"\\x17\\x03\\x03\\x40\\x00" + b"\\x02" * 600)

    def in_the_clear(client):  # bytes of a record, past the TLS of this end
        import socket
        raw = socket.socket(fileno=os.dup(client.fileno()))
        record(raw)

    ways = [*SLOW_ANSWERS.values(), [in_the_clear]]
    servers = [RawServer(script, [TAKEN], tls=tls).__enter__()
               for script in ways for tls in (None, context)]
    handshake = RawServer([drip(b"\\x16\\x03\\x03\\x40\\x00" + b"\\x02" * 600)]).__enter__()
    handshake.read = False
    urls = [_https(s) if s._tls else s.url for s in servers] + [_https(handshake)]
    started = time.monotonic()
    posts = [gevent.spawn(_result, _transport(url), deadline_s=1.0) for url in urls]
    gevent.joinall(posts, timeout=20, raise_error=True)
    print([post.value for post in posts], time.monotonic() - started < 10)
    again = _transport(urls[1])
    print(_result(again, deadline_s=10.0))
    os._exit(0)
"""


def test_greenlets_end_in_time(certificate):
    """Of gevent's sockets, whose TLS waits anew for every few bytes of one record."""
    code = textwrap.dedent(GREEN.replace("\\\\", "\\"))

    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, certificate)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    first, second = (done.stdout or done.stderr).splitlines()[-2:]
    assert first.endswith("True"), done.stderr
    # What is no TLS record in the clear is no HTTP either.
    assert first.count("'timeout'") >= 10, first
    assert "None" not in first
    assert second == "delivered"


def _https(server):
    return server.url.replace("http://127.0.0.1", "https://localhost")


def _transport(target, *, timeout_s=(5.0, 5.0)):
    return Transport(allowed_hosts=(), timeout_s=timeout_s, url_override=target)


def _in_time(transport, deadline_s=0.4, timeout_s=None, **event):
    """The result of a POST that has so little time, once it is seen that it took no longer."""
    if timeout_s is not None:
        transport._timeout_s = timeout_s
    started = time.monotonic()
    result = _result(transport, deadline_s=deadline_s, **event)
    assert time.monotonic() - started < IN_TIME_S
    return result


def _result(transport, *, deadline_s, params=None):
    transport._deadline_s = deadline_s
    try:
        transport.post(Event.of(US_URL, params or params_of()))
    except (TransientDeliveryError, PermanentDeliveryError) as error:
        return error.reason
    return "delivered"
