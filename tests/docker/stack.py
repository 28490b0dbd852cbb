"""The compose file's services under a name of their own, and a visitor of the shop."""

from __future__ import annotations

import base64
import http.cookiejar
import json
import os
import re
import subprocess
import urllib.error
import urllib.request

from ..support import eventually, free_port
from . import engine

SERVICES = ("redis", "worker", "flower", "demo-worker", "shop", "collector")
USER, PASSWORD = "flower", "correct-horse"


class Stack:
    """``docker compose --profile demo``, with secrets and ports for this run."""

    def __init__(self, celeryconfig):
        self._command = engine.compose_commands()[0].split()
        self.project = f"optly-test-{os.getpid()}"
        self.shop_port, self.flower_port = free_port(), free_port()
        self._environment = os.environ | {
            "OPTLY_IMAGE": engine.IMAGE,
            "PYTHON_IMAGE": engine.PYTHON_IMAGE,
            "REDIS_IMAGE": engine.REDIS_IMAGE,
            "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}",
            "FLOWER_COOKIE_SECRET": "for this test alone",
            "FLOWER_PORT": str(self.flower_port),
            "SHOP_PORT": str(self.shop_port),
            "CELERYCONFIG": str(celeryconfig),
        }

    def compose(self, *arguments):
        """Run a compose command, and return what it says on standard output."""
        command = [
            *self._command, "--project-name", self.project,
            "--project-directory", engine.ROOT, "--env-file", engine.ROOT / ".env.example",
            "-f", engine.ROOT / "docker-compose.yml",
            "-f", engine.ROOT / "tests" / "docker" / "compose.yml",
            "--profile", "demo", *arguments,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def containers(self, service):
        """The ids of a service's containers, the stopped ones included."""
        labels = {"project": self.project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return engine.docker("ps", "-aq", "--no-trunc", *filters).split()

    def inspect(self, service):
        (container,) = self.containers(service)
        return json.loads(engine.docker("inspect", container))[0]

    def runs(self, container):
        return engine.docker("inspect", "-f", "{{.State.Running}}", container) == "true"

    def healthy(self, service, count=1):
        """Wait until so many containers of a service say that they are healthy."""
        status = "{{.State.Health.Status}}"

        def seen():
            ids = self.containers(service)
            return [engine.docker("inspect", "-f", status, one) for one in ids]

        def said():
            logs = self.compose("logs", "--tail", "20", service)
            return f"{count} healthy {service}, but {seen()}: {logs}"

        # Each looks every 30 s, and may take 15 s for it.
        eventually(lambda: seen() == ["healthy"] * count, timeout_s=180, what=said)

    def arrived(self):
        """What the collector has got, as the page tells it."""
        return json.loads(Visitor(self).get("/arrived"))

    def flower(self, path, *, user=USER, password=PASSWORD):
        """A page of Flower, as text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.flower_port}{path}")
        if user:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return answer.read().decode()

    def tasks(self):
        """Flower's tasks, by their ids."""
        return json.loads(self.flower("/api/tasks"))


class Visitor:
    """Somebody at the shop, with a cookie."""

    def __init__(self, stack):
        self._url = f"http://127.0.0.1:{stack.shop_port}"
        self._jar = http.cookiejar.CookieJar()
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._jar)
        ).open

    @property
    def id(self):
        (cookie,) = self._jar
        return cookie.value

    def get(self, path):
        with self._open(self._url + path, timeout=30) as answer:
            return answer.read().decode()

    def come_by(self):
        """One event: the impression."""
        assert "Free shipping" in self.get("/")

    def buy(self):
        """Two events: the conversion, and the impression of the page after it."""
        with self._open(self._url + "/buy", data=b"", timeout=30) as answer:
            assert "Thank you!" in answer.read().decode()


def events_in(summary):
    """How many events a task's summary in Flower counts."""
    return int(re.search(r", (\d+) events?,", summary)[1])
