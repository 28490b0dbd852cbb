"""The Flask extension, used as an app would."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from importlib import resources

import pytest
from celery import Celery, _state
from flask import Flask, current_app, request

from optly_celery import SettingsError, stats
from optly_celery.contrib.flask import ContextError, Optimizely

from ..support import eventually

DATAFILE = resources.files("optly_celery.demo").joinpath("datafile.json").read_text()

optimizely = Optimizely()


@pytest.fixture(autouse=True)
def no_celery_app(monkeypatch):
    """Celery apps of other tests do not count."""
    monkeypatch.setattr(_state, "default_app", None)


def create_app(extension=optimizely, name="shop", celery=None, celery_app=None, **config):
    """A factory such as a user's."""
    app = Flask(name)
    app.config["OPTIMIZELY"] = {
        "datafile": DATAFILE,
        "user_id": lambda: request.args["visitor"],
    } | config
    if celery is not None:
        app.config["CELERY"] = celery
    extension.init_app(app, celery_app=celery_app)

    @app.get("/buy")
    def buy():
        decision = extension.user.decide("new_checkout")
        extension.user.track_event("purchase", {"revenue": 4200})
        return decision.variation_key

    return app


def test_a_request_decides_and_tracks_for_its_own_user(optly_events):
    """One context a request, from the function that the configuration names."""
    client = create_app(attributes=lambda: {"plan": "team"}).test_client()

    shown = client.get("/buy?visitor=ann").text
    client.get("/buy?visitor=bob")

    optly_events.assert_decided(
        "new_checkout", user_id="ann", variation_key=shown, attributes={"plan": "team"}, times=1
    )
    optly_events.assert_tracked("purchase", user_id="ann", revenue=4200, times=1)
    optly_events.assert_tracked("purchase", user_id="bob", times=1)
    assert len(optly_events.events) == 4


def test_the_user_stays_the_same_as_long_as_the_request_lasts():
    """What is set on it is still there, and the functions are called once."""
    calls = []
    app = create_app(user_id=lambda: calls.append("id") or "ann", attributes=None)

    with app.test_request_context("/"):
        optimizely.user.set_attribute("plan", "team")
        assert optimizely.user.get_user_attributes() == {"plan": "team"}
        assert optimizely.user is current_app.extensions["optimizely"].user
    with app.test_request_context("/"):
        assert optimizely.user.get_user_attributes() == {}

    assert calls == ["id", "id"]


def test_functions_may_be_given_to_the_extension_and_replaced_for_one_app(optly_events):
    """For those who keep code out of their configuration."""
    extension = Optimizely(user_id=lambda: "everybody", attributes=lambda: {"plan": "free"})
    one, other = Flask("one"), Flask("other")
    one.config["OPTIMIZELY"] = {"datafile": DATAFILE}
    other.config["OPTIMIZELY"] = {"datafile": DATAFILE, "user_id": lambda: "nobody"}
    for app in (one, other):
        extension.init_app(app)
        with app.test_request_context("/"):
            extension.user.decide("new_checkout")

    assert [e.user_id for e in optly_events.events] == ["everybody", "nobody"]
    assert len(optly_events.decisions(attributes={"plan": "free"})) == 2


def test_several_apps_in_one_process_keep_their_own(broker):
    """One extension, two apps: each has its client, and its events go through its own Celery."""
    config = {"broker_url": broker.url}
    shop = create_app(name="shop", celery=config | {"optly_queue": "shop"})
    blog = create_app(name="blog", celery=config | {"optly_queue": "blog"})

    shop.test_client().get("/buy?visitor=ann")
    blog.test_client().get("/buy?visitor=bob")

    assert shop.extensions["optimizely"].client is not blog.extensions["optimizely"].client
    assert stats()["published"] == 4
    for queue, there, absent in (("shop", '"ann"', '"bob"'), ("blog", '"bob"', '"ann"')):
        bodies = [_body(message) for message in broker.client().lrange(queue, 0, -1)]
        assert [(there in body, absent in body) for body in bodies] == [(True, False)] * 2


def _body(message):
    return base64.b64decode(json.loads(message)["body"]).decode()


def test_the_celery_app_is_the_given_one_before_that_of_the_configuration(broker):
    """Then Flask's own pattern, ``app.extensions["celery"]``, even if set up afterwards."""
    given, pattern = (Celery(name, set_as_current=False) for name in ("given", "pattern"))
    config = {"broker_url": broker.url}

    app = create_app(celery=config, celery_app=given)
    app.extensions["celery"] = pattern
    assert app.extensions["optimizely"].celery_app is given

    app = create_app(celery=config)
    app.extensions["celery"] = pattern
    assert app.extensions["optimizely"].celery_app is pattern

    app = create_app(extension=Optimizely(celery_app=given))
    assert app.extensions["optimizely"].celery_app is given

    made = create_app(celery=config).extensions["optimizely"].celery_app
    assert made.conf.broker_url == broker.url
    made.loader.import_default_modules()  # as a worker does
    assert "optly_celery.deliver" in made.tasks


def test_without_celery_in_the_app_the_current_one_counts(app, broker):
    """As for `EventDispatcher`: the app that the process has made."""
    create_app().test_client().get("/buy?visitor=ann")

    assert broker.client().llen("optimizely") == 2


def test_a_wrong_celery_setting_is_counted_and_raises_nothing(caplog):
    """The page is shown; the log says what to mend."""
    client = create_app(celery={"broker_url": "memory://", "optly_queu": "x"}).test_client()

    assert client.get("/buy?visitor=ann").status_code == 200

    assert stats()["dropped"] == {"bad_settings": 2}
    assert "did you mean optly_queue?" in caplog.text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "is not set: give it"),
        ("sdk-key", "a value of type str, no dictionary"),
        ({}, "neither an sdk_key nor a datafile"),
        ({"sdk_key": "", "datafile": None}, "neither an sdk_key nor a datafile"),
        ({"sdk_key": "k", "sdk_kye": "k"}, "did you mean sdk_key?"),
        ({"datafile": {"version": "4"}}, "datafile is the JSON text"),
        ({"sdk_key": "k", "user_id": "ann"}, "user_id in .* has to be a function"),
        ({"sdk_key": "k", "attributes": {"plan": 1}}, "attributes in .* has to be a function"),
    ],
)
def test_a_wrong_configuration_is_refused_by_init_app(config, words):
    """With a sentence, when the app starts, not when the first visitor comes."""
    app = Flask("shop")
    if config is not None:
        app.config["OPTIMIZELY"] = config

    with pytest.raises(SettingsError, match=words):
        Optimizely(app)

    assert "optimizely" not in app.extensions


def test_init_app_twice_is_refused():
    """Two clients would poll, and requests would see either."""
    app = create_app()

    with pytest.raises(SettingsError, match="'shop' has an Optimizely extension already"):
        Optimizely(app)


@pytest.mark.parametrize(("returned", "words"), [(None, "None"), ("", "empty text"), (7, "int")])
def test_an_id_that_is_none_is_refused_without_telling_it(returned, words):
    """An anonymous visitor needs an id as well, or everybody would be the same one."""
    with (
        create_app(user_id=lambda: returned).test_request_context("/"),
        pytest.raises(SettingsError, match=f"user_id function of .* returned .*{words}"),
    ):
        optimizely.user  # noqa: B018


def test_what_belongs_to_a_request_says_so_elsewhere():
    """And what to use there instead."""
    app, bare = create_app(), Flask("bare")
    with pytest.raises(ContextError, match="none is current"):
        optimizely.client  # noqa: B018
    with bare.app_context(), pytest.raises(ContextError, match=r"'bare' has no .* init_app"):
        optimizely.client  # noqa: B018
    with app.app_context():
        with pytest.raises(ContextError, match=r"optimizely.client.create_user_context"):
            optimizely.user  # noqa: B018
        assert optimizely.client.create_user_context("ann").decide("new_checkout").enabled
    with (
        create_app(user_id=None).test_request_context("/"),
        pytest.raises(SettingsError, match="has no user_id"),
    ):
        optimizely.user  # noqa: B018
    with (
        create_app(attributes=lambda: ["plan"]).test_request_context("/?visitor=ann"),
        pytest.raises(SettingsError, match=r"attributes function .* returned a value of type list"),
    ):
        optimizely.user  # noqa: B018


def test_a_process_of_the_users_app_and_its_worker(tmp_path, broker, collector, make_worker):
    """Flask's own Celery pattern, from a request to the endpoint, by a worker of the same app."""
    (tmp_path / "datafile.json").write_text(DATAFILE)
    (tmp_path / "shop.py").write_text(SHOP.format(broker=broker.url, url=collector.url))
    make_worker(broker.url, "-Q", "celery,optimizely", "-c", "2", app="shop:celery_app")

    shown = subprocess.run(
        [sys.executable, "-c", "import shop; print(shop.app.test_client().get('/').text)"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip

    (received,) = eventually(lambda: collector.received)
    assert f'"variation_key": "{shown}"' in received.body.decode()


SHOP = """
from celery import Celery, Task
from flask import Flask

from optly_celery.contrib.flask import Optimizely

optimizely = Optimizely(user_id=lambda: "ann")


def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app


def create_app():
    app = Flask(__name__)
    app.config["OPTIMIZELY"] = {{"datafile": open("datafile.json").read()}}
    app.config["CELERY"] = {{
        "broker_url": "{broker}",
        "broker_connection_retry_on_startup": True,
        "include": ["optly_celery.tasks"],
        "optly_url_override": "{url}",
    }}
    optimizely.init_app(app)
    celery_init_app(app)

    @app.get("/")
    def show():
        return optimizely.user.decide("new_checkout").variation_key

    return app


app = create_app()
celery_app = app.extensions["celery"]
"""


def test_the_commands_are_those_of_the_command_line(broker):
    """About the Celery app of the Flask app."""
    app = create_app(celery={"broker_url": broker.url, "optly_queue": "shop"})
    app.test_client().get("/buy?visitor=ann")
    runner = app.test_cli_runner()

    listed = runner.invoke(args=["optimizely", "--help"]).output
    status = runner.invoke(args=["optimizely", "status", "--json", "--timeout", "0.2"])
    letters = runner.invoke(args=["optimizely", "dead-letters", "list"])

    assert {"status", "dead-letters", "outbox", "demo"} <= set(listed.split())
    facts = json.loads(status.stdout)
    assert (facts["queue"], facts["waiting"], status.exit_code) == ("shop", 2, 1)
    assert letters.exit_code == 0


def test_a_command_says_what_is_wrong_with_the_configuration():
    """In a sentence, with the exit code of the command line."""
    app = create_app(celery={"broker_url": "memory://", "optly_queu": "x"})

    done = app.test_cli_runner().invoke(args=["optimizely", "status"])

    assert done.exit_code == 78
    assert "did you mean optly_queue?" in done.output


QUIET = """
import os, sys, threading
import optly_celery.contrib.flask, flask
seen = []
loud = {"socket.connect", "socket.listen", "socket.sendto", "socket.getaddrinfo", "os.fork",
        "subprocess.Popen", "_thread.start_new_thread"}
sys.addaudithook(lambda name, args: seen.append(name) if name in loud else None)
files = len(os.listdir("/dev/fd"))
app = flask.Flask("shop")
app.config["OPTIMIZELY"] = {"sdk_key": "none"}
app.config["CELERY"] = {"broker_url": "redis://127.0.0.1:1/0", "optly_delivery": "outbox"}
optly_celery.contrib.flask.Optimizely(app)
assert (seen, threading.active_count(), len(os.listdir("/dev/fd")) - files) == ([], 1, 0), seen
assert "optly_celery.cli" not in sys.modules
"""


def test_init_app_opens_and_starts_nothing():
    """No connection, thread or file, with an SDK key or not; and the commands can wait."""
    subprocess.run([sys.executable, "-W", "error", "-c", QUIET], check=True)
