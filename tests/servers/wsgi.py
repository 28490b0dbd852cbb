"""The shop as a WSGI application: ``GET /<visitor>`` is a visit, answered with the process's id."""

from __future__ import annotations

import os

from . import shop


def application(environ, start_response):
    visitor = environ["PATH_INFO"].strip("/")
    if visitor:
        shop.visit(visitor)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
