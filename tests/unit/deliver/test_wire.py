"""HTTP as it is on the wire: whatever an endpoint sends, its answer is that event's and no other's.

And whatever it sends, or does not send, a POST ends within its deadline.
"""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optly_celery.deliver.transport import Transport
from optly_celery.errors import PermanentDeliveryError, TransientDeliveryError
from optly_celery.event.event import Event

from ...support import US_URL, eventually, params_of
from .raw_server import RawServer, drip, endless, reset, shut

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
AWAY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"

DELIVERED = "delivered"
LATE, BROKEN, CLOSED = "timeout", "broken_answer", "connection_error"
NO_ANSWER = (LATE, BROKEN, CLOSED)
LONG_S = 30.0
"""How long what drips would drip: any limit that holds is far below."""


def interim(status, *lines):
    return b"\r\n".join([b"HTTP/1.1 %d Interim" % status, *lines, b"", b""])


ODD = {
    # Interim answers: the final one counts.
    "103 then 204": ([HINTS, TAKEN], DELIVERED),
    "103 and 204 in one piece": ([HINTS + TAKEN], DELIVERED),
    "103, a pause, 204": ([HINTS, 0.1, TAKEN], DELIVERED),
    "102 102 204": ([PROCESSING, PROCESSING, TAKEN], DELIVERED),
    "100 three times, 204": ([CONTINUE * 3, TAKEN], DELIVERED),
    "100 102 103 204": ([CONTINUE + PROCESSING + HINTS + TAKEN], DELIVERED),
    "104, which nobody knows, 204": ([interim(104, b"X: 1") + TAKEN], DELIVERED),
    "199 then 204": ([interim(199) + TAKEN], DELIVERED),
    "110 with a length, 204": ([interim(110, b"Content-Length: 5") + TAKEN], DELIVERED),
    "103 byte by byte, 204": ([drip(HINTS, 0.001), TAKEN], DELIVERED),
    "103 with bare line feeds, 204": ([HINTS.replace(b"\r", b"") + TAKEN], DELIVERED),
    "103 of HTTP/1.0, 204": ([HINTS.replace(b"1.1", b"1.0") + TAKEN], DELIVERED),
    "103 that says close, 204": ([interim(103, b"Connection: close") + TAKEN], DELIVERED),
    "103 then 503": ([HINTS, AWAY], "http_503"),
    "103 then 400": ([HINTS, REFUSED], "http_400"),
    "103 then 101": ([HINTS + interim(101, b"Upgrade: h2c")], "http_101"),
    "103 and silence": ([HINTS], LATE),
    "100 and silence": ([CONTINUE], LATE),
    "103 and goodbye": ([HINTS, shut], CLOSED),
    "half a 103 and goodbye": ([HINTS[:30], shut], CLOSED),
    "103 and no HTTP": ([HINTS + b"hello\r\n\r\n"], NO_ANSWER),
    "101": ([interim(101)], "http_101"),
    "101 and another protocol": ([interim(101, b"Upgrade: x", b"Connection: Upgrade") + b"\0\1"],
                                 "http_101"),
    "101 then 204": ([interim(101) + TAKEN], "http_101"),
    "endless 100": ([endless(CONTINUE)], NO_ANSWER),
    "endless 103": ([endless(HINTS)], NO_ANSWER),
    "endless 100, slowly": ([endless(CONTINUE, 0.1)], LATE),
    # More than the answer.
    "204 with a body": ([TAKEN + b"surprise"], DELIVERED),
    "204 with a length and a body": (
        [TAKEN.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello")], DELIVERED),
    "204 and a second 204": ([TAKEN + TAKEN], DELIVERED),
    "204 and a second 204 later": ([TAKEN, 0.1, TAKEN], DELIVERED),
    "204 in chunks": ([TAKEN.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
                       + b"2\r\nok\r\n0\r\n\r\n"], DELIVERED),
    "503 and a 204": ([AWAY + TAKEN], "http_503"),
    "400 and a 204": ([REFUSED + TAKEN], "http_400"),
    "304 with a body": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n" + TAKEN],
                        "http_304"),
    "a length that is too short": ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + TAKEN],
                                   DELIVERED),
    "garbage after a length": ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\0\0\r\n"],
                               DELIVERED),
    "a chunked answer and a 204": ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + TAKEN], DELIVERED),
    "a 408 that nobody asked for": (
        [TAKEN, 0.05, b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"], DELIVERED),
    "a length and chunks": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"2\r\nok\r\n0\r\n\r\n" + TAKEN], DELIVERED),
    "two lengths": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 30\r\n\r\nok" + TAKEN],
        (DELIVERED, *NO_ANSWER)),
    "one length, twice": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"], DELIVERED),
    "a negative length": ([b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", shut],
                          (DELIVERED, *NO_ANSWER)),
    "a length that is no number": ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello", shut],
                                   (DELIVERED, *NO_ANSWER)),
    "a body without a length": ([b"HTTP/1.1 200 OK\r\n\r\nhello", shut], DELIVERED),
    "a body without a length or an end": ([b"HTTP/1.1 200 OK\r\n\r\nhello"], DELIVERED),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], DELIVERED),
    "HTTP/1.0, kept, and more": (
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" + TAKEN],
        DELIVERED),
    "close, and more": (
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" + TAKEN], DELIVERED),
    # Less than the answer: its status stands.
    "a body cut short": ([b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf", shut], DELIVERED),
    "a body that stays out": ([b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf"], DELIVERED),
    "a refusal whose words stay out": (
        [b"HTTP/1.1 400 No\r\nContent-Length: 90\r\n\r\nhalf"], "http_400"),
    "trouble whose words stay out": (
        [b"HTTP/1.1 503 No\r\nContent-Length: 90\r\n\r\nhalf"], "http_503"),
    "a body byte by byte": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n", drip(b"x" * 600)], DELIVERED),
    "a body that is too long": ([b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n",
                                 b"x" * 900_000], DELIVERED),
    "a body of an answer, cut short": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + TAKEN * 3_000], DELIVERED),
    "chunks cut short": ([CHUNKED + b"50\r\nhalf", shut], DELIVERED),
    "chunks without an end": ([CHUNKED + b"2\r\nok\r\n"], DELIVERED),
    "chunks byte by byte": ([CHUNKED, drip(b"2\r\nok\r\n" * 100)], DELIVERED),
    "a chunk's extension, byte by byte": ([CHUNKED, drip(b"2;" + b"x" * 600)], DELIVERED),
    "a chunk's extension without an end": ([CHUNKED + b"2;", endless(b"x" * 60_000)], DELIVERED),
    "a chunk of no size": ([CHUNKED + b"zz\r\nno\r\n" + TAKEN], DELIVERED),
    "a chunk of negative size": ([CHUNKED + b"-2\r\nno\r\n" + TAKEN], DELIVERED),
    "a chunk of size -1": ([CHUNKED + b"-1\r\nno\r\n" + TAKEN], DELIVERED),
    "a chunk of size +2": ([CHUNKED + b"+2\r\nno\r\n0\r\n\r\n" + TAKEN], DELIVERED),
    "a chunk of all the world": ([CHUNKED + b"f" * 40 + b"\r\nno", shut], DELIVERED),
    "trailers byte by byte": ([CHUNKED + b"0\r\n", drip(b"X-A: b\r\n" * 80)], DELIVERED),
    "trailers without an end": ([CHUNKED + b"0\r\n", endless(b"X-A: b\r\n" * 1_000)], DELIVERED),
    "trailers, then more": ([CHUNKED + b"0\r\nX-A: b\r\n\r\n" + TAKEN], DELIVERED),
    # No answer.
    "silence": ([], LATE),
    "goodbye": ([shut], CLOSED),
    "a reset": ([reset], CLOSED),
    "a status line byte by byte": ([drip(b"HTTP/1.1 204 " + b"x" * 600)], LATE),
    "a status line without an end": ([endless(b"x" * 1_000)], NO_ANSWER),
    "a status line without an end, slowly": ([b"HTTP/1.1 204 ", endless(b"x", 0.1)], LATE),
    "a header byte by byte": ([TAKEN[:-2], drip(b"X-A: " + b"b" * 600)], LATE),
    "headers one by one": ([TAKEN[:-2], endless(b"X-A: b\r\n", 0.1)], LATE),
    "headers without an end": ([TAKEN[:-2], endless(b"X-A: b\r\n" * 100)], NO_ANSWER),
    "a header without an end": ([TAKEN[:-2] + b"X-A: ", endless(b"b" * 1_000)], NO_ANSWER),
    "a huge header": ([TAKEN[:-2] + b"X-A: " + b"b" * 70_000 + b"\r\n\r\n"], NO_ANSWER),
    "many large headers": ([TAKEN[:-2] + (b"X-A: " + b"b" * 60_000 + b"\r\n") * 90 + b"\r\n"],
                           NO_ANSWER),
    "half a status line and goodbye": ([b"HTTP/1.1 20", shut], (*NO_ANSWER, "http_20")),
    "half a head and a reset": ([TAKEN[:-2], 0.05, reset], (DELIVERED, *NO_ANSWER)),
    "HTTP/0.9": ([b"<html>ok</html>", shut], NO_ANSWER),
    "another protocol": ([b"220 smtp ready\r\n"], NO_ANSWER),
    "HTTP/2": ([b"HTTP/2 204\r\n\r\n"], NO_ANSWER),
    "HTTP/2 in binary": ([b"\0\0\x12\4\0\0\0\0\0" + b"\0" * 18, shut], NO_ANSWER),
    "nothing but line feeds": ([b"\r\n" * 50, shut], NO_ANSWER),
    "a line feed, then 204": ([b"\r\n" + TAKEN], NO_ANSWER),
    "a status that is no number": ([b"HTTP/1.1 abc OK\r\n\r\n"], NO_ANSWER),
    "no status": ([b"HTTP/1.1\r\n\r\n"], NO_ANSWER),
    "status -204": ([b"HTTP/1.1 -204 OK\r\n\r\n"], NO_ANSWER),
    "status 0": ([b"HTTP/1.1 0 OK\r\n\r\n"], NO_ANSWER),
    "status 99": ([b"HTTP/1.1 99 OK\r\n\r\n"], NO_ANSWER),
    "status 600": ([b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n"], "http_600"),
    "status 999": ([b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"], "http_999"),
    "status 1000": ([b"HTTP/1.1 1000 Odd\r\n\r\n"], NO_ANSWER),
    "status 2040": ([b"HTTP/1.1 2040 Odd\r\n\r\n"], NO_ANSWER),
    "a header that is none": ([b"HTTP/1.1 204 OK\r\nno header\r\n\r\n"], DELIVERED),
    "a header with a zero byte": ([b"HTTP/1.1 204 OK\r\nX: \0\r\n\r\n"], DELIVERED),
    "a header in latin-1": ([b"HTTP/1.1 204 OK\r\nX: \xe9\xff\r\n\r\n"], DELIVERED),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), ODD.values(), ids=list(ODD))
def test_the_next_event_gets_its_own_answer(script, expected):
    """After whatever came for the one before: a 503 is that event's, and so is the 204 after it."""
    with RawServer(script, [AWAY], [TAKEN]) as server:
        transport = _transport(server, deadline_s=0.5)
        started = time.monotonic()

        first = _result(transport, "first")

        assert time.monotonic() - started < LONG_S / 3
        assert first in ([expected] if isinstance(expected, str) else expected)
        # What comes late is on its way by now, if this server is still at it.
        eventually(lambda: server.done or not _is_short(script))
        transport = _again(transport)
        assert _result(transport, "second") == "http_503"
        assert _result(transport, "third") == DELIVERED
        assert [b"first" in server.requests[0][1], b"second" in server.requests[1][1]] == [True] * 2


_READ = io.DEFAULT_BUFFER_SIZE
GLUED = {
    "a 204": TAKEN + TAKEN,
    "a byte": TAKEN + b"x",
    "a line feed": TAKEN + b"\n",
    "a 503 and a 204": AWAY + TAKEN,
    "a refusal and a 204": REFUSED + TAKEN,
    "chunks and a 204": CHUNKED + b"0\r\n\r\n" + TAKEN,
    "half a 204": TAKEN + TAKEN[:9],
    "a 101": interim(101) + TAKEN,
    # What is read in one go is all answer: the rest is where nobody looks.
    "a full buffer and a 204": TAKEN[:-2]
    + b"X: "
    + b"y" * (_READ - len(TAKEN) - 5)
    + b"\r\n\r\n"
    + TAKEN,
    "a record of many": TAKEN * 400,  # more than is read in one go, and less than TLS decrypts
}


@pytest.mark.parametrize("answer", GLUED.values(), ids=list(GLUED))
@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_on_which_more_came_than_an_answer_is_closed(server_tls, trusted, answer, tls):
    """What comes next on it need not be the next answer, and would be taken for it."""
    with RawServer([answer], [AWAY], tls=server_tls if tls else None) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost") if tls else server.url
        transport = _transport(server, url_override=url)
        _result(transport, "first")

        assert _result(transport, "second") == "http_503"
        assert server.connections == 2


PIECES = [TAKEN, AWAY, REFUSED, CHUNKED, CONTINUE, HINTS, b"Transfer-Encoding: chunked"]
PIECES += [b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/", b"204", b"103", b"101", b"200 OK", b"x" * 100]
PIECES += [b"Content-Length: ", b"Connection: close", b"Content-Encoding: gzip", b"0\r\n\r\n"]
PIECES += [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b"0", b"-1", b"\0", b"\xff"]


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12))
def test_no_bytes_are_anything_but_an_answer_or_trouble(pieces):
    """Nothing that an endpoint says raises what the task does not expect."""
    with RawServer([b"".join(pieces), shut], [AWAY]) as server:
        transport = _transport(server)

        first = _result(transport, "first")

        assert first in (DELIVERED, *NO_ANSWER) or first.startswith("http_")
        eventually(lambda: server.done)
        assert _result(transport, "second") == "http_503"


def test_an_answer_that_is_as_it_should_be_keeps_its_connection():
    """Or every event would pay for the odd ones."""
    usual = [
        [TAKEN], [REFUSED], [AWAY], [HINTS + TAKEN], [CONTINUE, TAKEN], [PROCESSING + AWAY],
        [CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], [CHUNKED + b"2;a=b\r\nok\r\n0\r\nX-A: b\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
        [b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"],
    ]  # fmt: skip
    with RawServer(*usual) as server:
        transport = _transport(server)

        results = [_result(transport, "event") for _ in usual]

        assert results == [DELIVERED, "http_400", "http_503", DELIVERED, DELIVERED, "http_503",
                           DELIVERED, DELIVERED, DELIVERED, DELIVERED]  # fmt: skip
        assert server.connections == 1


def _is_short(script):
    """Whether it comes to its end without the other side: what drips need not."""
    return all(isinstance(step, (bytes, float)) for step in script)


def _again(transport):
    """The same transport, with time to spare: what follows is not about deadlines."""
    transport._deadline_s = 10.0
    return transport


def _transport(server, *, deadline_s=10.0, timeout_s=(5.0, 5.0), **options):
    url = {"url_override": server.url}
    return Transport(
        **{"allowed_hosts": (), "timeout_s": timeout_s, "deadline_s": deadline_s, **url, **options}
    )


def _result(transport, uuid, *, visitor="visitor"):
    """What a post ends with: "delivered" or the reason. Whatever else it raises is a failure."""
    try:
        transport.post(Event.of(US_URL, params_of(visitor, uuid)))
    except (TransientDeliveryError, PermanentDeliveryError) as error:
        return error.reason
    return DELIVERED
