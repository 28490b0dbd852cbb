"""http.client and urllib3: a connection with a limit on the whole of a POST."""

from __future__ import annotations

import http.client
import inspect
import io

import pytest
import urllib3

from .borrowed import rows, says, takes

SEEN, SEEN_PYTHON = "urllib3 2.8.0", "Python 3.11"
WEAKER = "an endpoint that dribbles holds a thread, and a 103 is taken for the answer"


def _connection_makes_it_of_its_socket() -> None:
    source = inspect.getsource(http.client.HTTPConnection.getresponse)
    assert "self.response_class(self.sock" in source
    assert "self.response_class(self.sock" in inspect.getsource(http.client.HTTPConnection._tunnel)


def _all_that_is_sent_goes_by_it() -> None:
    assert "self.send(" in inspect.getsource(http.client.HTTPConnection._send_output)
    assert "self.send(" in inspect.getsource(urllib3.connection.HTTPConnection.request)


def _it_is_what_begins_an_answer() -> None:
    source = inspect.getsource(http.client.HTTPResponse.begin)
    assert "self._read_status()" in source
    response = http.client.HTTPResponse.__new__(http.client.HTTPResponse)
    response.fp, response.debuglevel = io.BytesIO(b"HTTP/1.1 103 Early Hints\r\n"), 0
    assert response._read_status()[1] == 103


def _pools_are_made_of_these_classes() -> None:
    manager = urllib3.PoolManager()
    assert set(manager.pool_classes_by_scheme) == {"http", "https"}

    class Ours(urllib3.HTTPConnectionPool):
        pass

    manager.pool_classes_by_scheme = {"http": Ours}
    assert type(manager.connection_from_url("http://host/")) is Ours


def _pools_call_it() -> None:
    made = []

    class Ours(urllib3.HTTPConnectionPool):
        ConnectionCls = staticmethod(lambda **options: made.append(options))

    Ours("host")._new_conn()
    assert {"host", "port", "timeout"} <= set(made[0])


ROWS = [
    *rows(
        "http.client:HTTPConnection", where="deliver/connection.py", seen=SEEN_PYTHON,
        gone=f"find what makes the answer, opens the tunnel or sends; until then {WEAKER}",
        names={
            "connect": "it has the time that is left",
            "send": ("in pieces, each with the time that is left", _all_that_is_sent_goes_by_it),
            "response_class": ("reads with the time that is left",
                               _connection_makes_it_of_its_socket),
            "_tunnel": ("the handshake after it has the time that is left",
                        says("urllib3.connection:HTTPConnection.connect", "self._tunnel()")),
        },
    ),
    *rows(
        "http.client:HTTPResponse", where="deliver/connection.py", seen=SEEN_PYTHON,
        gone=f"find where the status line is read, and where the answer ends; until then {WEAKER}",
        names={
            "_read_status": ("interim answers are read past", _it_is_what_begins_an_answer),
            "_close_conn": ("what is left over is noticed",
                            says("http.client:HTTPResponse.close", "self._close_conn()")),
        },
    ),
    *rows(
        "urllib3.connection:HTTPConnection", where="deliver/connection.py", seen=SEEN,
        gone="find what connects: until then each address of a host has all the time for itself",
        names={
            "_new_conn": ("each address has the time that is left",
                          says("urllib3.connection:HTTPConnection.connect", "self._new_conn()")),
            "_dns_host": "the name with its last dot; without it, `host` will do",
        },
    ),
    *rows(
        "urllib3.connectionpool:HTTPConnectionPool", where="deliver/connection.py", seen=SEEN,
        gone=f"find what makes a pool's connections; until then {WEAKER}",
        names={"ConnectionCls": ("ours, with their exchange", _pools_call_it)},
    ),
    *rows(
        "urllib3.poolmanager:PoolManager", where="deliver/session.py", seen=SEEN,
        gone=f"find what makes a manager's pools; until then {WEAKER}",
        names={"pool_classes_by_scheme": ("ours, with their exchange",
                                          _pools_are_made_of_these_classes)},
    ),
    *rows(
        "requests.adapters:HTTPAdapter", where="deliver/session.py", seen="requests 2.34.2",
        gone=f"find where an adapter makes its managers; until then {WEAKER}",
        names={
            "init_poolmanager": ("its pools are ours", says(
                "requests.adapters:HTTPAdapter.init_poolmanager", "self.poolmanager = ")),
            "proxy_manager_for": ("a proxy's too", takes(
                "requests.adapters:HTTPAdapter.proxy_manager_for", "proxy")),
            "proxy_manager": "which of those are known",
            "close": "forgets the pools that are known by URL",
        },
    ),
    *rows(
        "requests.adapters:HTTPAdapter", where="deliver/session.py", seen="requests 2.34.2",
        since="requests 2.32", gone="nothing: it is asked for each POST then, which costs 50 µs",
        names={"get_connection_with_tls_context": (
            "once for each URL",
            takes("requests.adapters:HTTPAdapter.get_connection_with_tls_context",
                  "request", "verify", "proxies", "cert"))},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
