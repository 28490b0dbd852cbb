"""requests and urllib3: one attempt to post, without what a session adds."""

from __future__ import annotations

import pytest
import requests

from .borrowed import rows, takes

SEEN = "requests 2.34.2"


def _it_costs_no_request_that_was_prepared() -> None:
    prepared = requests.Request("POST", "https://host/", data=b"one").prepare()
    copy = prepared.copy()
    copy.prepare_body(b"three", None)
    assert (copy.body, copy.headers["Content-Length"]) == (b"three", "5")
    assert (prepared.body, prepared.headers["Content-Length"]) == (b"one", "3")


ROWS = [
    *rows(
        "requests:Session", where="deliver/transport.py", seen=SEEN,
        gone="session.send with allow_redirects=False, which looks at proxies for each POST",
        names={
            "get_adapter": ("posts past the session", takes("requests:Session.get_adapter", "url")),
            "merge_environment_settings": (
                "proxies and certificates, once for a host",
                takes("requests:Session.merge_environment_settings",
                      "url", "proxies", "stream", "verify", "cert")),
        },
    ),
    *rows(
        "requests:PreparedRequest", where="deliver/transport.py", seen=SEEN,
        gone="prepare each request anew, which costs 90 µs",
        names={"copy": ("one is prepared for many", _it_costs_no_request_that_was_prepared),
               "prepare_body": ("another body, with its length",
                                takes("requests:PreparedRequest.prepare_body", "data", "files"))},
    ),
    *rows(
        "requests.adapters:HTTPAdapter", where="deliver/transport.py", seen=SEEN,
        gone="see what sends now: no retries may happen below the policy",
        names={"send": ("takes what the environment says", takes(
            "requests.adapters:HTTPAdapter.send", "timeout", "verify", "cert", "proxies"))},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
