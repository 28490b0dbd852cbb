"""Which of an event's headers are sent on: all but those about a connection and a request's end."""

from __future__ import annotations

import pytest

from optly_celery.deliver.request import end_to_end
from optly_celery.deliver.transport import Transport
from optly_celery.errors import PermanentDeliveryError
from optly_celery.event.event import Event

from ...support import US_URL, params_of

OURS = [
    "Connection", "Content-Length", "Expect", "Host", "HTTP2-Settings", "Keep-Alive",
    "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Trailers",
    "Transfer-Encoding", "Upgrade",
]  # fmt: skip

SPELT = [str, str.lower, str.upper, str.swapcase, " {}".format, "{} ".format, "\t{}\t".format]

MEANT = {
    "Host": "evil.example",
    "Content-Length": "3",
    "Transfer-Encoding": "chunked",
    "Connection": "close",
    "Expect": "100-continue",
    "Upgrade": "h2c",
    "TE": "trailers",
    "Trailer": "X-After",
    "Keep-Alive": "timeout=1",
    "Proxy-Connection": "close",
    "Proxy-Authorization": "Basic YTpi",
}


@pytest.mark.parametrize("spell", SPELT)
@pytest.mark.parametrize("name", OURS)
def test_what_is_about_a_connection_is_not_sent_on(name, spell):
    """In any letter case, and with white space around it."""
    headers = {"X-A": "1", spell(name): "x", "X-B": "2"}

    assert dict(end_to_end(headers)) == {"X-A": "1", "X-B": "2"}


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ("X-A", ["X-B", "Content-Type"]),
        ("x-a", ["X-B", "Content-Type"]),
        ("close, X-A", ["X-B", "Content-Type"]),
        ("X-A,X-B", ["Content-Type"]),
        (" X-A ,\tx-b ", ["Content-Type"]),
        ("content-type", ["X-A", "X-B"]),
        ("keep-alive", ["X-A", "X-B", "Content-Type"]),
        ("", ["X-A", "X-B", "Content-Type"]),
        (",,", ["X-A", "X-B", "Content-Type"]),
        ("X-", ["X-A", "X-B", "Content-Type"]),
    ],
)
@pytest.mark.parametrize("spelt", ["Connection", "CONNECTION", " connection"])
def test_what_connection_names_is_not_sent_on(named, left, spelt):
    """It says so of other headers: they are about the connection as well."""
    headers = {"X-A": "1", spelt: named, "X-B": "2", "Content-Type": "a/b"}

    assert [name for name, _ in end_to_end(headers)] == left


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json", "X-Custom": 'a, b;c="d" '},
        {"Accept": "*/*", "Accept-Encoding": "gzip", "Cookie": "a=b", "Authorization": "Bearer t"},
        {"X-Host": "1", "Host2": "1", "Connections": "1", "Upgrade-Insecure-Requests": "1"},
        {"Content-Encoding": "identity", "Content-Language": "de", "User-Agent": "shop/1"},
        {"X-Forwarded-Host": "shop.example", "Via": "1.1 shop", "Forwarded": "for=1.2.3.4"},
        {},
    ],
)
def test_everything_else_is_sent_on_as_it_was(headers):
    """Names in their letter case, values with every character, in their order."""
    assert list(end_to_end(headers)) == list(headers.items())


def test_a_message_cannot_say_where_its_request_ends(collector):
    """All of them at once, on a connection that is used again: each event is one request."""
    transport = Transport(allowed_hosts=(), timeout_s=(2.0, 2.0), url_override=collector.url)
    smuggled = Event.of(US_URL, params_of("v", "u-1"), "POST", {**MEANT, "X-Mine": "kept"})

    for _ in range(3):
        transport.post(smuggled)

    host = collector.url.split("/")[2]
    assert [(r.method, r.body) for r in collector.received] == [
        ("POST", smuggled.body.encode())
    ] * 3
    for sent in collector.received:
        assert sent.headers["host"] == host
        assert sent.headers["content-length"] == str(len(smuggled.body))
        assert sent.headers["x-mine"] == "kept"
        assert not {name.lower() for name in MEANT} - {"host", "content-length"} & set(sent.headers)
    assert collector.connections == 1


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("name", MEANT)
def test_each_alone_changes_no_request(collector, verb, name):
    """Nor does a GET get a body by it."""
    transport = Transport(allowed_hosts=(), timeout_s=(2.0, 2.0), url_override=collector.url)
    plain = Event.of(US_URL, params_of(), verb, {"X-Mine": "kept"})
    transport.post(plain)

    transport.post(Event.of(US_URL, params_of(), verb, {name: MEANT[name], "X-Mine": "kept"}))

    first, second = collector.received
    assert (second.method, second.target, second.body) == (first.method, first.target, first.body)
    assert second.headers == first.headers


@pytest.mark.parametrize("name", ["X-A", "User-Agent", "Accept-Encoding"])
def test_a_value_that_urllib3_has_a_meaning_for_is_refused(collector, name):
    """It would leave a header out, or raise when half of the request was sent."""
    transport = Transport(allowed_hosts=(), timeout_s=(2.0, 2.0), url_override=collector.url)

    with pytest.raises(PermanentDeliveryError) as refusal:
        transport.post(Event.of(US_URL, params_of(), "POST", {name: "@@@SKIP_HEADER@@@"}))

    assert refusal.value.reason == "invalid_request"
    assert collector.connections == 0
