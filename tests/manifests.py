"""The Kubernetes manifests of docs/operations.md, as a cluster would read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def manifests() -> dict[str, dict[str, Any]]:
    """The page's YAML by kind; what is but a part of a pod's spec is put into a Pod."""
    found = {}
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        read = yaml.safe_load(block)
        if "kind" not in read:
            read = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": read}
        assert read["kind"] not in found
        found[read["kind"]] = read
    return found


def worker() -> dict[str, Any]:
    """The Deployment's only container."""
    (container,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def probe(name: str) -> list[str]:
    """The command of ``readinessProbe`` or ``livenessProbe``."""
    return worker()[name]["exec"]["command"]
