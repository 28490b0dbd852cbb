"""What may be set, what is refused, and what a refusal says."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from optly_celery import Settings, SettingsError
from optly_celery.runtime.runtime import Runtime
from optly_celery.settings.settings import is_redis_url

GOOD = [
    ("enabled", False, False),
    ("enabled", " Yes ", True),
    ("enabled", "0", False),
    ("queue", " events ", "events"),
    ("allowed_hosts", "A.example, b.example", ("a.example", "b.example")),
    ("allowed_hosts", ["a.example"], ("a.example",)),
    ("url_override", "http://localhost:8080/events", "http://localhost:8080/events"),
    ("url_override", " https://[::1]/ ", "https://[::1]/"),
    ("url_override", "", None),
    ("request_deadline", None, None),
    ("request_deadline", "", None),
    ("request_deadline", "20", 20.0),
    ("request_deadline", 0.5, 0.5),
    ("request_deadline", timedelta(seconds=20), 20.0),
    ("request_timeout", 5, (5.0, 5.0)),
    ("request_timeout", "3.05, 27", (3.05, 27.0)),
    ("request_timeout", [1, 2.5], (1.0, 2.5)),
    ("max_retries", "0", 0),
    ("max_retries", 7.0, 7),
    ("retry_backoff", "0.5", 0.5),
    ("retry_backoff_max", 3_000, 3_000.0),
    ("pause_after", "0", 0),
    ("pause_after", 7, 7),
    ("max_age", timedelta(days=1), 86_400.0),
    ("max_age", 0, 0.0),
    ("strict", "on", True),
    ("one_cpu", "off", False),
    ("publish_timeout", "2", 2.0),
    ("delivery", " Outbox ", "outbox"),
    ("batch_events", "10", 10),
    ("batch_bytes", 1e6, 1_000_000),
    ("linger", "0", 0.0),
    ("outbox_dir", Path("/var/lib/shop"), "/var/lib/shop"),
    ("outbox_dir", "", None),
    ("outbox_max_bytes", "50000000", 50_000_000),
    ("dead_letter_url", "rediss://:secret@redis:6380/1", "rediss://:secret@redis:6380/1"),
    ("dead_letter_url", "unix:///run/redis.sock", "unix:///run/redis.sock"),
    ("dead_letter_url", "redis://", "redis://"),
    ("dead_letter_max_age", timedelta(minutes=1), 60.0),
]

NONSENSE = [
    ("enabled", "maybe", "true or false"),
    ("enabled", 1, "true or false"),
    ("delivery", "carrier pigeon", "direct or outbox"),
    ("delivery", None, "direct or outbox"),
    ("queue", "  ", "a name"),
    ("queue", 7, "a name"),
    ("allowed_hosts", "https://logx.optimizely.com", "host names"),
    ("allowed_hosts", "logx.optimizely.com:443", "host names"),
    ("allowed_hosts", "*.optimizely.com", "host names"),
    ("allowed_hosts", ["logx.optimizely.com", None], "host names"),
    ("allowed_hosts", [], "host names"),
    ("allowed_hosts", 7, "host names"),
    ("url_override", "collector:8080", "http:// or https:// URL"),
    ("url_override", "ftp://collector/", "http:// or https:// URL"),
    ("url_override", "http://", "http:// or https:// URL"),
    ("url_override", "http://collector:eighty/", "http:// or https:// URL"),
    ("url_override", "http://my collector/", "http:// or https:// URL"),
    ("url_override", 7, "http:// or https:// URL"),
    ("request_deadline", 0, "seconds from 0.01"),
    ("request_deadline", -1, "seconds from 0.01"),
    ("request_deadline", "soon", "seconds from 0.01"),
    ("request_deadline", (3, 10), "seconds from 0.01"),
    ("request_deadline", float("inf"), "seconds from 0.01"),
    ("request_deadline", float("nan"), "seconds from 0.01"),
    ("request_deadline", True, "seconds from 0.01"),
    ("request_timeout", 0, "seconds above 0"),
    ("request_timeout", (3, None), "seconds above 0"),
    ("request_timeout", (1, 2, 3), "seconds above 0"),
    ("request_timeout", "soon", "seconds above 0"),
    ("request_timeout", [], "seconds above 0"),
    ("max_retries", -1, "a whole number from 0"),
    ("max_retries", 1.5, "a whole number from 0"),
    ("max_retries", True, "a whole number from 0"),
    ("max_retries", "many", "a whole number from 0"),
    ("max_retries", 10**400, "a whole number from 0"),
    ("retry_backoff", 0, "seconds from 0.01"),
    ("retry_backoff", float("nan"), "seconds from 0.01"),
    ("retry_backoff_max", "inf", "seconds from 0.01"),
    ("pause_after", -1, "a whole number from 0"),
    ("pause_after", 2.5, "a whole number from 0"),
    ("max_age", -1, "seconds from 0"),
    ("max_age", [1], "seconds from 0"),
    ("strict", None, "true or false"),
    ("one_cpu", 2, "true or false"),
    ("publish_timeout", 0, "seconds from 0.01 to 60"),
    ("publish_timeout", 61, "seconds from 0.01 to 60"),
    ("batch_events", 0, "whole numbers from 1 to 10,000"),
    ("batch_events", 2.5, "whole numbers from 1 to 10,000"),
    ("batch_bytes", 4_000_000, "whole numbers from 1 to 3,500,000"),
    ("batch_bytes", "3 MB", "whole numbers from 1 to 3,500,000"),
    ("linger", -1, "seconds from 0 to 60"),
    ("outbox_dir", 7, "the path of a directory"),
    ("outbox_max_bytes", -1, "whole numbers from 0"),
    ("dead_letter_max_age", 59, "seconds from 60"),
]


@pytest.mark.parametrize(("name", "value", "meant"), GOOD)
def test_a_good_value_is_read_in_the_form_in_which_it_is_written(name, value, meant):
    """Python values and the text of an environment variable mean the same."""
    assert getattr(Settings(**{name: value}), name) == meant


@pytest.mark.parametrize(("name", "value", "allowed"), NONSENSE)
def test_nonsense_is_refused_with_key_value_and_what_is_allowed(name, value, allowed):
    """The sentence is enough to mend it."""
    with pytest.raises(SettingsError) as refusal:
        Settings(**{name: value})

    said = str(refusal.value)
    assert said.startswith(f"optly_{name} is ")
    assert repr(value) in said
    assert allowed in said


def test_each_setting_is_in_these_lists():
    """A new setting comes with what it takes and what it refuses."""
    names = {item.name for item in fields(Settings)}

    assert {name for name, *_ in GOOD} == names
    assert {name for name, *_ in NONSENSE} == names - {"dead_letter_url"}  # tested below


@pytest.mark.parametrize(
    "value", ["amqp://:hunter2@rabbit", "redis://:hunter2@h:port/0", b"hunter2"]
)
def test_a_dead_letter_url_is_refused_without_being_quoted(value):
    """It is likely to hold a password, wherever it is wrong."""
    with pytest.raises(SettingsError, match="optly_dead_letter_url is no Redis URL") as refusal:
        Settings(dead_letter_url=value)

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url_override", "ftp://ann:hunter2@collector/"),
        ("url_override", "https://ann:hun/ter2@collector:port/"),
        ("url_override", "ann:hunter2@collector"),
        ("allowed_hosts", "https://ann:hunter2@collector"),
        ("request_timeout", "http://ann:hunter2@collector"),
    ],
)
def test_no_refusal_quotes_a_password(name, value):
    """Of a URL with user and password, put where it belongs or not, the place is shown."""
    with pytest.raises(SettingsError) as refusal:
        Settings(**{name: value})

    said = str(refusal.value)
    assert "ter2" not in said
    assert "***@collector" in said


def test_repr_shows_no_url_that_may_hold_a_password():
    """A Settings in a log or a traceback gives nothing away."""
    settings = Settings(
        dead_letter_url="redis://:hunter2@redis/0", url_override="https://ann:hunter2@collector/"
    )

    assert "hunter2" not in repr(settings)
    assert "queue='optimizely'" in repr(settings)


def test_settings_cannot_be_changed():
    """Whoever holds them may rely on them."""
    with pytest.raises(AttributeError):
        Settings().queue = "other"


def test_a_first_backoff_longer_than_the_longest_is_refused():
    """One of the two is a mistake, and both are named."""
    with pytest.raises(
        SettingsError, match=r"optly_retry_backoff is 20 s.*optly_retry_backoff_max"
    ):
        Settings(retry_backoff=20, retry_backoff_max=10)


@pytest.mark.parametrize("key", ["optly_qeue", "optly_retry_backof", "optly_max_agee"])
def test_an_unknown_key_is_refused_with_what_was_probably_meant(key):
    """A typing error does not silently mean the default."""
    near = {"optly_qeue": "optly_queue", "optly_max_agee": "optly_max_age"}
    with pytest.raises(SettingsError, match=f"{key} is no setting.*did you mean optly_") as refusal:
        _read({key: 1})

    assert str(refusal.value).endswith(f"{near.get(key, 'optly_retry_backoff')}?")


def test_an_unknown_key_like_no_other_is_refused_with_all_that_are_known():
    """Where there is nothing near, the list helps."""
    with pytest.raises(
        SettingsError, match=r"optly_xyz is no setting.*known: enabled, delivery, queue,"
    ):
        _read({"optly_xyz": 1})


def test_django_spelling_is_read_under_the_usual_namespace():
    """``CELERY_OPTLY_QUEUE`` in Django's settings is ``optly_queue``."""
    found = _read_namespaced(CELERY_OPTLY_QUEUE="events", CELERY_OPTLY_MAX_RETRIES=7)

    assert (found.queue, found.max_retries) == ("events", 7)


def test_any_namespace_will_do():
    """The namespace is the project's choice."""
    app = Celery(set_as_current=False)
    app.config_from_object({"SHOP_OPTLY_QUEUE": "events"}, namespace="SHOP")

    assert Settings.from_celery(app.conf).queue == "events"


def test_an_unknown_key_in_a_namespace_is_refused_in_its_own_spelling():
    """The sentence can be copied into the settings file."""
    with pytest.raises(SettingsError, match=r"CELERY_OPTLY_QEUE.*mean CELERY_OPTLY_QUEUE\?"):
        _read_namespaced(CELERY_OPTLY_QEUE="events")


def test_a_setting_without_the_namespace_is_refused_since_celery_would_not_read_it():
    """``OPTLY_QUEUE`` in Django's settings was meant for us, and would do nothing."""
    with pytest.raises(SettingsError, match=r"OPTLY_QUEUE is not read .*write CELERY_OPTLY_QUEUE"):
        _read_namespaced(OPTLY_QUEUE="events")
    with pytest.raises(SettingsError, match=r"OPTLY_QUEUE is not read .*write optly_queue"):
        _read({"OPTLY_QUEUE": "events"})


def test_other_django_settings_with_our_prefix_are_left_alone():
    """``OPTLY_SDK_KEY`` is a likely name of a setting that is the project's own."""
    assert _read_namespaced(OPTLY_SDK_KEY="abc", MY_OPTLY_QUEUE="x").queue == "optimizely"


def test_none_means_the_default():
    """A settings file may compute a value, and have none."""
    assert _read({"optly_queue": None}).queue == "optimizely"


def test_every_setting_can_be_given_as_text():
    """The standalone worker has nothing but its environment."""
    texts = {
        "optly_enabled": "true",
        "optly_queue": "events",
        "optly_allowed_hosts": "a.example,b.example",
        "optly_url_override": "http://localhost:1/",
        "optly_request_timeout": "1,2",
        "optly_max_retries": "3",
        "optly_retry_backoff": "4",
        "optly_retry_backoff_max": "5",
        "optly_max_age": "6",
        "optly_strict": "no",
        "optly_publish_timeout": "0.7",
        "optly_dead_letter_url": "redis://dead/0",
        "optly_dead_letter_max_age": "80",
    }

    found = _read(texts)

    assert found == Settings(
        enabled=True,
        queue="events",
        allowed_hosts=("a.example", "b.example"),
        url_override="http://localhost:1/",
        request_timeout=(1.0, 2.0),
        max_retries=3,
        retry_backoff=4.0,
        retry_backoff_max=5.0,
        max_age=6.0,
        strict=False,
        publish_timeout=0.7,
        dead_letter_url="redis://dead/0",
        dead_letter_max_age=80.0,
    )


@pytest.mark.parametrize(
    ("broker_url", "kept_at"),
    [
        ("redis://broker/1", "redis://broker/1"),
        (["redis://first/0", "redis://second/0"], "redis://first/0"),
        ("redis://first/0;redis://second/0", "redis://first/0"),
        ("amqp://rabbit//", None),
    ],
)
def test_dead_letters_are_kept_in_the_broker_when_that_is_redis(broker_url, kept_at):
    """Of several brokers, in the first; with another kind of broker it has to be said where."""
    assert _read({"broker_url": broker_url}).dead_letter_url == kept_at
    assert _read(
        {"broker_url": broker_url, "optly_dead_letter_url": "redis://d"}
    ).dead_letter_url == ("redis://d")


@pytest.mark.parametrize("timeout_s", [300, 313.05, "313"])
def test_a_backoff_that_the_visibility_timeout_would_overtake_is_refused(timeout_s):
    """Redis would hand a waiting event out again; 313.05 s are the longest backoff and attempt."""
    with pytest.raises(SettingsError, match=r"optly_retry_backoff_max.*visibility_timeout"):
        _read({"broker_transport_options": {"visibility_timeout": timeout_s}})


def test_a_visibility_timeout_longer_than_backoff_and_attempt_will_do():
    """One second more than the longest backoff (300 s) and attempt (13.05 s)."""
    _read({"broker_transport_options": {"visibility_timeout": 314.05}})


def test_a_deadline_counts_in_place_of_the_timeouts():
    """It is what a POST may take, be it less than connecting and one read, or more."""
    visible = {"broker_transport_options": {"visibility_timeout": 310}}

    _read(visible | {"optly_request_deadline": 9.9})
    with pytest.raises(SettingsError, match=r"optly_request_deadline \(10 s\) together reach"):
        _read(visible | {"optly_request_deadline": 10})


@pytest.mark.parametrize(
    ("timeout_s", "deadline_s", "is_good"),
    [(60, 30, True), (60, 30.5, False), (26, 13.0, True), (26, 13.1, False), (2.1, 1.2, False)],
)
def test_a_deadline_is_at_most_half_the_visibility_timeout(timeout_s, deadline_s, is_good):
    """Within that a task has to end, splitting included."""
    conf = {
        "broker_transport_options": {"visibility_timeout": timeout_s},
        "optly_retry_backoff": 0.1, "optly_retry_backoff_max": 0.5,
        "optly_request_deadline": deadline_s,
    }  # fmt: skip
    if is_good:
        assert _read(conf).longest_post_s == deadline_s
        return
    with pytest.raises(SettingsError, match=r"optly_request_deadline .*half.*visibility_timeout"):
        _read(conf)


def test_a_visibility_timeout_that_did_before_there_were_deadlines_still_does():
    """None is asked for, so none is refused; a POST has no longer than its task then."""
    visible = {"broker_transport_options": {"visibility_timeout": 14}}
    app = Celery(set_as_current=False, broker="redis://broker/0")
    app.conf.update(visible | {"optly_retry_backoff": 0.1, "optly_retry_backoff_max": 0.5})

    found = Runtime(app)

    assert found.settings.longest_post_s == 13.05
    assert (found.longest_task_s, found.longest_post_s) == (7.0, 7.0)


def test_a_post_may_take_as_long_as_connecting_and_one_read():
    """Where nothing else is said."""
    assert Settings().longest_post_s == pytest.approx(13.05)
    assert Settings(request_timeout=(1, 2)).longest_post_s == 3.0
    assert Settings(request_timeout=(1, 2), request_deadline="2.5").longest_post_s == 2.5


def test_celerys_own_visibility_timeout_counts_where_none_is_set():
    """An hour: a backoff of an hour is refused."""
    with pytest.raises(SettingsError, match=r"visibility_timeout \(3600 s\)"):
        _read({"optly_retry_backoff_max": 3600})


@pytest.mark.parametrize("timeout_s", [None, "soon", -1])
def test_a_visibility_timeout_that_is_no_number_is_refused(timeout_s):
    """It is Celery's to read, but ours to compare with."""
    with pytest.raises(SettingsError, match="visibility_timeout in broker_transport_options is"):
        _read({"broker_transport_options": {"visibility_timeout": timeout_s}})


def test_other_brokers_have_no_visibility_timeout_to_mind():
    """RabbitMQ keeps a message until its connection is gone."""
    found = _read({"broker_url": "amqp://rabbit//", "optly_retry_backoff_max": 9000})

    assert found.retry_backoff_max == 9000


@pytest.mark.parametrize(
    ("url", "is_redis"),
    [
        ("redis://h", True),
        ("rediss://h", True),
        ("redis+socket:///s", True),
        ("unix:///s", True),
        ("sentinel://h", False),
        ("amqp://h", False),
        ("memory://", False),
        ("", False),
    ],
)
def test_redis_is_known_by_the_scheme(url, is_redis):
    """Those that redis-py can connect to as well; sentinel is not one of them."""
    assert is_redis_url(url) is is_redis


def _read(conf):
    app = Celery(set_as_current=False, broker="redis://broker/0")
    app.conf.update(conf)
    return Settings.from_celery(app.conf)


def _read_namespaced(**conf):
    app = Celery(set_as_current=False)
    app.config_from_object({"CELERY_BROKER_URL": "redis://broker/0"} | conf, namespace="CELERY")
    return Settings.from_celery(app.conf)
