"""The manifests of docs/operations.md against Kubernetes' own schemas."""

from __future__ import annotations

import kubernetes_validate
import pytest

from ..manifests import manifests

OLDEST, NEWEST = "1.29", "1.33"
MANIFESTS = manifests()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_a_manifest_is_what_kubernetes_understands(kind, version):
    """Strictly: a field that it does not know is an error."""
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_every_manifest_is_tested():
    """KEDA's own resource is no part of Kubernetes' schemas: `tests/test_operations.py`."""
    assert set(MANIFESTS) == {"Deployment", "Pod", "ScaledObject"}
