"""What a process has for one Celery app."""

from __future__ import annotations

import pytest
from celery import Celery

from optly_celery.errors import SettingsError
from optly_celery.runtime.runtime import Runtime


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no_such_module", "'shop' cannot be read (ModuleNotFoundError: "),
        ({"optly_delivery": "pigeon"}, "optly_delivery is 'pigeon'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_a_sentence(source, said):
    """A configuration is a program, and may raise anything; a wrong setting has its own words."""
    app = Celery("shop", set_as_current=False)
    app.config_from_object(source)

    with pytest.raises(SettingsError) as refusal:
        Runtime(app).checked()
    assert said in str(refusal.value)


def test_a_configuration_that_can_be_used_gives_the_runtime():
    """Where nothing is wrong, checking hands back the very runtime that was asked."""
    runtime = Runtime(Celery("shop", set_as_current=False))
    assert runtime.checked() is runtime
