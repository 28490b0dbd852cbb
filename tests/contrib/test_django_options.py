"""What ``settings.OPTIMIZELY`` may hold, and what it says when it may not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import override_settings

from optly_celery.contrib.django import client
from optly_celery.contrib.django.options import Options, current_options
from optly_celery.errors import SettingsError

from .django_site import DATAFILE, FLAG, Recorder, optimizely, recorder

__all__ = ["recorder"]


def made_level():
    return "what the function returned"


def test_the_client_is_the_sdks(recorder):
    """``isinstance`` included, though nothing is built before it is used."""
    from optimizely.optimizely import Optimizely

    with optimizely():
        assert isinstance(client, Optimizely)
        assert client.create_user_context("v").decide(FLAG).flag_key == FLAG
    assert recorder.visitors() == ["v"]


def test_a_datafile_may_be_a_path(tmp_path, recorder):
    """The client decides by what is in that file: settings need not read it themselves."""
    path = tmp_path / "datafile.json"
    path.write_text(DATAFILE)
    with optimizely(datafile=path):
        assert client.get_optimizely_config().revision == "7"


def test_new_settings_make_a_new_client(recorder):
    """As ``override_settings`` in a project's own tests expects."""
    with optimizely():
        first = client.get_optimizely_config().revision
    with optimizely(datafile=DATAFILE.replace('"revision": "7"', '"revision": "8"')):
        assert (first, client.get_optimizely_config().revision) == ("7", "8")


def test_what_makes_a_config_manager_is_left_to_be_called_in_each_process():
    """One made here would have its thread in the process that forks, and in no other."""
    options = Options.of({"config_manager": "optimizely.config_manager.PollingConfigManager"})

    assert isinstance(options.sdk_arguments["config_manager"], type)


def test_text_for_any_other_argument_names_what_makes_its_value():
    """So that settings hold no objects, and nothing is made before it is needed."""
    options = Options.of({"logger": f"{__name__}.made_level"})

    assert options.sdk_arguments["logger"] == "what the function returned"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "a dictionary is allowed"),
        ({"sdkkey": "x"}, "did you mean 'sdk_key'?"),
        ({"SDK_KEY": "x"}, "did you mean 'sdk_key'?"),
        ({"colour": "x"}, "known: attributes, "),
        ({"user_id": "nowhere.at_all"}, "cannot be imported"),
        ({"user_id": "os.path"}, "a function or its dotted path"),
        ({"user_id": 7}, "a function or its dotted path"),
        ({"on_commit": "nope"}, "default, orders"),
        ({"cookie_age": "long"}, "seconds from 0"),
        ({"cookie_name": ""}, "a name is allowed"),
        ({"event_processor": "nowhere.at_all"}, "cannot be imported"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(given, words):
    """It says what is allowed, or what was probably meant, as soon as options are read."""
    with pytest.raises(SettingsError) as caught:
        Options.of(given)

    assert words in str(caught.value)


def test_a_datafile_that_is_not_there_is_named(tmp_path):
    """Rather than a client that decides nothing, the operating system's own reason."""
    with pytest.raises(SettingsError, match="No such file"):
        Options.of({"datafile": tmp_path / "datafile.json"})


def test_no_message_or_repr_holds_the_key():
    """Options may be shown on a debug page, or in a log."""
    options = Options.of({"sdk_key": "hush", "datafile_access_token": "hush"})

    assert "hush" not in repr(options)


def test_a_client_without_flags_is_refused_when_it_is_used():
    """A client that could decide nothing is never handed out in silence."""
    with override_settings(OPTIMIZELY={}), pytest.raises(SettingsError, match="no sdk_key"):
        client.create_user_context("v")


@pytest.mark.parametrize(("given", "alias"), [(True, "default"), (False, None), ("orders",) * 2])
def test_on_commit_is_true_false_or_a_database(given, alias):
    """True means the default database, False none, and a name that one."""
    with override_settings(OPTIMIZELY={"datafile": DATAFILE, "on_commit": given}):
        assert current_options().on_commit == alias


def test_an_argument_that_the_sdk_would_not_take_is_refused():
    """The SDK would log a line and lose every event."""
    with (
        override_settings(OPTIMIZELY={"datafile": DATAFILE, "event_dispatcher": object()}),
        pytest.raises(SettingsError, match="event_dispatcher"),
    ):
        client.create_user_context("v")


def test_on_commit_with_a_processor_of_another_is_refused():
    """It would be promised, and not done."""
    other = "optimizely.event.event_processor.ForwardingEventProcessor"
    with (
        override_settings(
            OPTIMIZELY={"datafile": DATAFILE, "event_processor": other, "on_commit": True}
        ),
        pytest.raises(SettingsError, match="leave out 'event_processor'"),
    ):
        client.create_user_context("v")


def test_threads_that_come_first_together_share_one_client(recorder):
    """Two would poll for the datafile twice, and could decide by different ones."""
    with optimizely(), ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: id(client.notification_center), range(64)))

    assert len(made) == 1


def test_the_dispatcher_of_the_project_is_kept(recorder):
    """``on_commit`` waits in front of it."""
    with optimizely(on_commit=True):
        client.create_user_context("v").decide(FLAG)

    assert len(Recorder.events) == 1


def test_an_old_path_to_the_client_leads_to_it():
    """Code of users may name it."""
    from optly_celery.contrib.django import client, lazy_client

    assert lazy_client.client is client
