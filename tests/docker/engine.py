"""The container engine of this machine, and the images under test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGE = "optly-celery-test"
PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.13-slim-bookworm")
REDIS_IMAGE = os.environ.get("REDIS_IMAGE", "redis:7-bookworm")


def missing() -> str | None:
    """Why nothing can be tested here, as a sentence; None where all is well."""
    if not shutil.which("docker"):
        return "There is no docker command."
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "No container engine answers: docker info fails."
    if not compose_commands():
        return "There is neither docker compose nor docker-compose."
    return None


def compose_commands() -> list[str]:
    """``docker compose`` and the older ``docker-compose``, as far as they are here.

    ``COMPOSE``, in the environment, names one of them, and then it is that one or none.
    """
    wanted = os.environ.get("COMPOSE")
    known = [wanted] if wanted else ["docker compose", "docker-compose"]
    return [command for command in known if _answers(*command.split(), "version")]


def _answers(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def docker(*arguments: str) -> str:
    """What a docker command says, without the line's end."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


def build(target: str) -> str:
    """Build a target of the Dockerfile, or find it built; returns the image's name."""
    name = f"{IMAGE}:{target}"
    docker("build", "--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}", "--target", target,
           "-t", name, str(ROOT))  # fmt: skip
    return name


def things() -> dict[str, set[str]]:
    """Every container, network and volume that there is."""
    return {
        "containers": set(docker("ps", "-aq", "--no-trunc").split()),
        "networks": set(docker("network", "ls", "-q", "--no-trunc").split()),
        "volumes": set(docker("volume", "ls", "-q").split()),
    }
