"""The POST over a real socket: what is sent where, and what each way to fail is called."""

from __future__ import annotations

import http.server
import pickle
import socket
import ssl
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from optly_celery.deliver.transport import Transport
from optly_celery.errors import DeliveryError, PermanentDeliveryError, TransientDeliveryError
from optly_celery.event.event import Event
from optly_celery.testing.server import Answer, Server

from ...support import US_URL, free_port, params_of

US_HOST = "logx.optimizely.com"


def test_an_event_is_posted_as_the_sdk_built_it(collector, event):
    """Its body byte for byte, its headers, to its address."""
    _transport(collector).post(event)

    (posted,) = collector.received
    assert (posted.method, posted.target) == ("POST", "/v1/events")
    assert posted.body == event.body.encode()
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["user-agent"] == "optly_celery/test"
    assert "x-optimizely-strict" not in posted.headers


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [(None, "application/json"), ({}, "application/json"), ({"CONTENT-type": "a/b"}, "a/b")],
)
def test_json_is_declared_unless_the_event_says_what_it_is(collector, headers, content_type):
    """The endpoint takes nothing without a content type."""
    _transport(collector).post(Event.of(US_URL, params_of(), "POST", headers))

    assert collector.received[0].headers["content-type"] == content_type


def test_strictness_is_asked_for_where_it_is_wanted(collector, event):
    """``optly_strict``: the endpoint refuses what it would silently ignore."""
    _transport(collector, strict=True).post(event)

    assert collector.received[0].headers["x-optimizely-strict"] == "true"


@pytest.mark.parametrize(
    "params",
    [
        {"a": "b c&d=é", "n": 1, "float": 1.5, "none": None, "true": True},
        {"list": ["x", "y"], "nested": {"k": "v"}, "empty": []},
        params_of("visitor ü", "uuid"),
        {},
    ],
)
def test_a_get_sends_params_as_the_query(collector, params):
    """As requests makes a query of them, which is what the SDK's own dispatcher does."""
    _transport(collector).post(Event.of(US_URL, params, "GET"))

    (sent,) = collector.received
    expected = requests.Request("GET", collector.url, params=params).prepare().path_url
    assert (sent.method, sent.target, sent.body) == ("GET", expected, b"")


def test_the_override_is_where_everything_goes(collector):
    """Whatever host the event names, also over http and with a user in the URL."""
    url = collector.url.replace("http://", "http://ann:pw@")
    transport = Transport(allowed_hosts=(), timeout_s=(2.0, 2.0), url_override=url)

    transport.post(Event.of("http://elsewhere.example/x", params_of()))

    (sent,) = collector.received
    assert sent.target == "/v1/events"
    assert sent.headers["authorization"] == requests.auth._basic_auth_str("ann", "pw")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(204),
        Answer(200, body=b'{"ok": true}'),
        Answer(200, {"Transfer-Encoding": "chunked"}, body=b"2\r\nok\r\n2\r\n!!\r\n0\r\n\r\n"),
        Answer(400, body=b"no" * 20_000),
        Answer(503, {"Retry-After": "1"}, body=b"later"),
        Answer(302, {"Location": "/elsewhere"}, body=b"moved"),
    ],
    ids=lambda answer: f"{answer.status}-{len(answer.body)}",
)
def test_one_connection_serves_many_posts(collector, event, answer):
    """Whatever the answers are: a handshake for each event would cost more than the event."""
    transport = _transport(collector)
    collector.script(*[answer] * 5)

    for _ in range(5):
        _result(transport, event)

    assert (len(collector.received), collector.connections) == (5, 1)


def test_requests_that_are_alike_have_bodies_of_their_own(collector):
    """What one thread is about to send does not change when another one prepares its event."""
    transport = _transport(collector)
    first, second = Event.of(US_URL, params_of("ann")), Event.of(US_URL, params_of("bob"))

    requests_made = [transport._request_of(event) for event in (first, second)]

    assert [request.body for request in requests_made] == [first.body, second.body]


def test_prepared_requests_do_not_pile_up(collector):
    """Headers that differ with each event fill no memory, and each goes out with its own."""
    transport = _transport(collector)
    collector.script(*[Answer(204)] * 150)

    for number in range(150):
        transport.post(Event.of(US_URL, params_of(), "POST", {"X-N": str(number)}))

    assert [sent.headers["x-n"] for sent in collector.received] == [str(n) for n in range(150)]
    assert 0 < len(transport._requests) <= 64


def test_an_answer_without_end_is_not_read_to_its_end(collector, event):
    """The status stands; the connection, in which the rest is stuck, is not used again."""
    collector.script(*[Answer(200, body=b"x" * 5_000_000)] * 2)
    transport = _transport(collector)

    transport.post(event)
    transport.post(event)

    assert collector.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {"Content-Length": "1000"}, body=b"half"),
        Answer(200, {"Transfer-Encoding": "chunked"}, body=b"zz\r\nno chunk"),
        Answer(200, {"Content-Encoding": "gzip"}, body=b"no gzip"),
    ],
    ids=["cut", "chunk", "gzip"],
)
def test_a_status_stands_whatever_becomes_of_the_body(collector, event, answer):
    """The endpoint has the event: to send it again for want of a body would make a duplicate."""
    collector.script(answer)
    transport = _transport(collector, timeout_s=(2.0, 0.2))

    transport.post(event)
    transport.post(event)

    assert len(collector.received) == 2


def test_a_connection_that_the_endpoint_closed_meanwhile_is_replaced(event):
    """Between two posts, as load balancers do: nobody notices."""
    with Server() as first:
        transport = _transport(first)
        transport.post(event)
    with Server(port=first._port) as second:
        transport.post(event)

        assert len(second.received) == 1


def test_calls_at_the_same_time_never_share_a_session(collector, event):
    """Each has one of its own for its length; there are no more than calls at the same time."""
    collector.latency_s = 0.01
    transport = _transport(collector)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: transport.post(event), range(60)))

    # urllib3 opens and throws away a connection whenever a session is used twice at a time.
    assert (len(collector.received), collector.connections) == (60, 4)
    assert len(set(transport._idle)) == len(transport._idle) == 4


def test_closing_closes_idle_connections_and_a_later_post_opens_new_ones(collector, event):
    """A worker that shuts down leaves nothing open; nothing breaks for who comes after."""
    transport = _transport(collector)
    transport.post(event)

    transport.close()
    transport.post(event)

    assert collector.connections == 2


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_status_worth_another_attempt_is_transient(collector, event, status):
    """With the status, and the wait that the endpoint asks for."""
    collector.script(Answer(status, {"Retry-After": "17"}))

    error = _result(_transport(collector), event)

    assert isinstance(error, TransientDeliveryError)
    assert (error.reason, error.status, error.retry_after_s) == (f"http_{status}", status, 17.0)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 413, 422, 499])
def test_any_other_status_is_permanent(collector, event, status):
    """A Retry-After there changes nothing."""
    collector.script(Answer(status, {"Retry-After": "17"}))

    error = _result(_transport(collector), event)

    assert isinstance(error, PermanentDeliveryError)
    assert (error.reason, error.status) == (f"http_{status}", status)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", None),
        (b"no", "no"),
        (b"x" * 2_000, "x" * 2_000),
        (b"x" * 2_001, "x" * 2_000),
        (b"x" * 60_000, "x" * 2_000),
        (b"x" * 200_000, "x" * 2_000),
        ("zu groß".encode(), "zu groß"),
        (b"\xff\xfe\0", "\ufffd\ufffd\0"),
        ("ß".encode() * 1_500, "ß" * 1_000),
        (b"x" + "ß".encode() * 1_500, "x" + "ß" * 999 + "\ufffd"),
        (b"\x1b[31m\r\n", "\x1b[31m\r\n"),
    ],
    ids=lambda value: f"{type(value).__name__}-{len(value or '')}",
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_refusal_s_words_are_kept_up_to_a_limit(collector, event, body, words, chunked):
    """2 kB of them, whatever they are, and nowhere but in one attribute."""
    sent = body and b"%x\r\n%b\r\n" % (len(body), body)
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    collector.script(Answer(400, headers, body=sent + b"0\r\n\r\n" if chunked else body))

    error = _result(_transport(collector), event)

    assert error.answer == words
    assert words is None or words not in repr(error) + str(error)


@pytest.mark.parametrize("status", [204, 302, 404, 413, 503])
def test_only_a_refusal_has_words(collector, event, status):
    """What is tried again is not kept, and its words would be there for as long as an outage."""
    collector.script(Answer(status, body=b"said" if status != 204 else b""))

    error = _result(_transport(collector), event)

    assert getattr(error, "answer", None) == ("said" if 300 <= status < 500 else None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/elsewhere", "https://evil.example/", "https://[bad", "http://a:b:c/", "", "\xff"]
)
def test_a_redirect_is_not_followed(collector, event, status, location):
    """The event goes where it was meant to go or nowhere, wherever the answer points."""
    collector.script(Answer(status, {"Location": location}))

    error = _result(_transport(collector), event)

    assert error.reason == f"http_{status}"
    assert len(collector.received) == 1


def test_a_refused_connection_is_transient(event):
    """The endpoint is away; it will be back."""
    transport = _transport(f"http://127.0.0.1:{free_port()}/v1/events")

    error = _result(transport, event)

    assert isinstance(error, TransientDeliveryError)
    assert (error.reason, error.status) == ("connection_error", None)
    assert "ConnectionError: MaxRetryError: NewConnectionError" in str(error)


def test_an_answer_that_takes_too_long_is_transient(collector, event):
    """By the read timeout; the event may have been taken all the same."""
    collector.script(Answer(204, delay_s=5))

    error = _result(_transport(collector, timeout_s=(2.0, 0.1)), event)

    assert (type(error), error.reason) == (TransientDeliveryError, "timeout")


@pytest.mark.parametrize("posts_before", [0, 1])
def test_a_connection_closed_without_an_answer_is_transient(collector, event, posts_before):
    """On a new connection and on a kept one; only the retry policy tries again, not urllib3."""
    transport = _transport(collector)
    for _ in range(posts_before):
        transport.post(event)
    collector.script(Answer(None))

    error = _result(transport, event)

    assert (type(error), error.reason) == (TransientDeliveryError, "connection_error")
    assert len(collector.received) == posts_before + 1
    transport.post(event)


@pytest.mark.parametrize(
    "answer", [b"HTTP/9 what\r\n\r\n", b"220 smtp ready\r\n", b"\x00" * 70_000]
)
def test_an_answer_that_is_not_http_is_transient(event, answer):
    """Somebody else listens there for the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            client, _ = listening.accept()
            with client:
                client.recv(65_536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        error = _result(_transport(f"http://127.0.0.1:{port}/"), event)
        thread.join()

    assert isinstance(error, TransientDeliveryError)


def test_cookies_are_neither_kept_nor_sent_back(collector, event):
    """Nothing ties one visitor's event to another's."""
    collector.script(Answer(204, {"Set-Cookie": "who=ann; Path=/"}))
    transport = _transport(collector)

    transport.post(event)
    transport.post(event)

    assert "cookie" not in collector.received[1].headers
    assert not list(transport._idle[-1].cookies)


def test_credentials_of_the_machine_are_not_sent(collector, event, tmp_path, monkeypatch):
    """``.netrc`` is for people; requests would read it."""
    (tmp_path / "netrc").write_text("default login ann password pw\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    _transport(collector).post(event)

    assert "authorization" not in collector.received[0].headers


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(collector, event, monkeypatch, name):
    """As requests documents it: in many networks there is no other way out."""
    monkeypatch.setenv(name, collector.url)

    _transport("http://collector.invalid/v1/events").post(event)

    (sent,) = collector.received
    assert sent.target == "http://collector.invalid/v1/events"
    assert sent.body == event.body.encode()


def test_a_proxy_is_not_used_for_what_no_proxy_names(collector, event, monkeypatch):
    """The first-party relay in the same network, for example."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")

    _transport(collector).post(event)

    assert collector.received[0].target == "/v1/events"


def test_a_proxy_sees_no_event_that_goes_over_https(collector, event, monkeypatch):
    """It is asked for a tunnel; one that gives none is a transient failure."""
    monkeypatch.setenv("HTTPS_PROXY", collector.url)

    error = _result(_allowing(US_HOST), event)

    assert isinstance(error, TransientDeliveryError)
    (sent,) = collector.received
    assert (sent.method, sent.target, sent.body) == ("CONNECT", f"{US_HOST}:443", b"")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://evil.example/v1/events", "host_not_allowed"),
        ("https://logx.optimizely.com@evil.example/", "host_not_allowed"),
        ("https://logx.optimizely.com:443@evil.example/", "host_not_allowed"),
        ("https://ann:pw@logx.optimizely.com/", "host_not_allowed"),
        (r"https://evil.example\@logx.optimizely.com/", "host_not_allowed"),
        (r"https://evil.example\logx.optimizely.com/", "host_not_allowed"),
        (r"https:\\evil.example/@logx.optimizely.com/", "invalid_request"),
        (r"https:/\evil.example/", "invalid_request"),
        ("https://evil.example#@logx.optimizely.com/", "host_not_allowed"),
        ("https://evil.example?@logx.optimizely.com/", "host_not_allowed"),
        ("https://evil.example/@logx.optimizely.com", "host_not_allowed"),
        ("https://logx.optimizely.com.evil.example/", "host_not_allowed"),
        ("https://evil-logx.optimizely.com/", "host_not_allowed"),
        ("https://logx.optimizely.com./", "host_not_allowed"),
        ("https://logx.optimizely.com%2eevil.example/", "host_not_allowed"),
        ("https://logx.optimizely.com\t.evil.example/", "invalid_request"),
        ("https://logx.optimizely.com\n.evil.example/", "invalid_request"),
        ("https://127.0.0.1/", "host_not_allowed"),
        ("https://[::1]/", "host_not_allowed"),
        ("http://logx.optimizely.com/v1/events", "not_https"),
        ("http+unix://logx.optimizely.com/", "not_https"),
        ("ftp://logx.optimizely.com/", "not_https"),
        ("file:///etc/passwd", "not_https"),
        ("javascript:alert(1)", "not_https"),
        ("logx.optimizely.com/v1/events", "invalid_request"),
        ("//logx.optimizely.com/v1/events", "invalid_request"),
        ("https://", "invalid_request"),
        ("https:///v1/events", "invalid_request"),
        ("https://[::1/", "invalid_request"),
        ("https://logx.optimizely.com:99999/", "invalid_request"),
        ("https://logx.optimizely.com:port/", "invalid_request"),
    ],
)
def test_an_event_for_another_place_is_refused_and_nothing_is_sent(
    collector, monkeypatch, url, reason
):
    """Only https, only to an allowed host, whatever tricks the URL plays."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):  # whatever is sent would come by here
        monkeypatch.setenv(name, collector.url)

    error = _result(_allowing(US_HOST), Event.of(url, params_of()))

    assert (type(error), error.reason) == (PermanentDeliveryError, reason)
    assert collector.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://LOGX.Optimizely.com/v1",
        "HTTPS://logx.optimizely.com",
        " https://logx.optimizely.com/",
        "https://@logx.optimizely.com/",
    ],
)
def test_an_allowed_host_is_known_in_any_spelling(collector, monkeypatch, url):
    """What counts is where requests connects to, not how it was written."""
    monkeypatch.setenv("HTTPS_PROXY", collector.url)

    _result(_allowing(US_HOST), Event.of(url, params_of()))

    assert collector.received[0].target == f"{US_HOST}:443"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1\r\nX-B: 2"},
        {"X-A\r\nX-B": "1"},
        {"X-A": "€"},
        {"X-Ä": "1"},
        {"": "1"},
        {"a:b": ""},
    ],
)
def test_headers_that_cannot_be_sent_are_refused_and_nothing_is_sent(collector, headers):
    """Nobody can put a second header, or a second request, into one."""
    error = _result(_transport(collector), Event.of(US_URL, params_of(), "POST", headers))

    assert (type(error), error.reason) == (PermanentDeliveryError, "invalid_request")
    assert collector.connections == 0


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tls_endpoint, event, monkeypatch):
    """Transient, since certificates get mended; nothing of the event is sent."""
    url, posted, _ = tls_endpoint

    error = _result(_transport(url), event)

    assert (type(error), error.reason) == (TransientDeliveryError, "connection_error")
    assert "SSLError" in str(error)
    assert posted == []


def test_a_certificate_bundle_of_the_environment_counts(tls_endpoint, event, monkeypatch):
    """``REQUESTS_CA_BUNDLE``: how companies make their own authority known."""
    url, posted, certificate = tls_endpoint
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    Transport(allowed_hosts=("localhost",), timeout_s=(2.0, 2.0)).post(
        Event.of(url, params_of(), "POST", event.headers)
    )

    assert posted == [event.body.encode()]


def test_a_certificate_bundle_that_is_not_there_is_transient(tls_endpoint, event, monkeypatch):
    """A worker that is set up wrong must not turn every event into a dead letter."""
    url, _, certificate = tls_endpoint
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate) + ".gone")

    error = _result(_transport(url), event)

    assert (type(error), error.reason) == (TransientDeliveryError, "connection_error")


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("answer", [Answer(None), Answer(503), Answer(400), Answer(302), None])
def test_no_error_holds_event_data(collector, verb, answer):
    """Not in text, repr, arguments or chain, though requests' own quote the URL of a GET."""
    event = Event.of(US_URL + "?ann=1", params_of("ann"), verb, {"X-Who": "ann"})
    target = f"http://127.0.0.1:{free_port()}/ann"
    if answer is not None:
        collector.script(answer)
        target = collector.url

    error = _result(_transport(target), event)

    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert "ann" not in shown
    assert error.__cause__ is None
    assert event.summary in str(error)


@pytest.mark.parametrize("answer", [Answer(None), Answer(503, {"Retry-After": "7"}), Answer(400)])
def test_errors_survive_the_way_out_of_a_worker_child(collector, event, answer):
    """A prefork worker pickles them: type, text and attributes stay."""
    collector.script(answer)
    error = _result(_transport(collector), event)

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.fixture
def tls_endpoint(certificate, monkeypatch):
    """An https server with that certificate: its URL, what was posted to it, the certificate."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://localhost:{server.server_port}/v1/events", posted, certificate[0]
        server.shutdown()
        thread.join()


def _transport(target, **options):
    url = target if isinstance(target, str) else target.url
    fields = {"allowed_hosts": (), "timeout_s": (2.0, 2.0), "user_agent": "optly_celery/test"}
    return Transport(**fields | {"url_override": url} | options)


def _allowing(*hosts):
    return Transport(allowed_hosts=hosts, timeout_s=(2.0, 2.0))


def _result(transport, event):
    """The error that a post ends with, or None."""
    try:
        transport.post(event)
    except DeliveryError as error:
        return error
    return None
