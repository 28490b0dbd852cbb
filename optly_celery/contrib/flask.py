"""The Flask extension: a client for each app, a user context for each request, the commands.

::

    optimizely = Optimizely()

    def create_app():
        app = Flask(__name__)
        app.config["OPTIMIZELY"] = {"sdk_key": "…", "user_id": lambda: session["visitor"]}
        app.config["CELERY"] = {"broker_url": "redis://…", "optly_delivery": "outbox"}
        optimizely.init_app(app)

    # in a view
    optimizely.user.decide("new_checkout")
    optimizely.user.track_event("purchase", {"revenue": 4200})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import celery
import click
from flask import Flask, current_app, g, has_app_context, has_request_context

from ..celery_app import current_app as current_celery_app
from ..errors import OptlyCeleryError, SettingsError
from ..event_dispatcher import AppDispatcher
from ..sdk.client import create_client

if TYPE_CHECKING:
    from optimizely.optimizely import Optimizely as Client
    from optimizely.optimizely_user_context import OptimizelyUserContext

NAME = "optimizely"
"""Under this, ``app.extensions`` has the app's `AppState`."""

_CONFIG = "app.config['OPTIMIZELY']"
_FLASK_KEYS = ("user_id", "attributes")

UserId = Callable[[], str]
Attributes = Callable[[], Mapping[str, Any]]


class ContextError(OptlyCeleryError, RuntimeError):
    """What is asked for belongs to an app or a request, and there is none."""


class AppState:
    """What one Flask app has: ``app.extensions["optimizely"]``."""

    def __init__(self, app: Flask, celery_app: Any, config: Mapping[str, Any]) -> None:
        self._app = app
        self._given = celery_app
        self._made: dict[str, Any] = {}
        self._user_id, self._attributes = (config.get(key) for key in _FLASK_KEYS)
        arguments = {k: v for k, v in config.items() if k not in _FLASK_KEYS}
        if arguments.get("event_dispatcher") is None:
            arguments["event_dispatcher"] = AppDispatcher(lambda: self.celery_app)
        try:
            self.client: Client = create_client(**arguments)
            """The app's client, built on first use in each process: see `create_client`."""
        except TypeError as exc:
            raise SettingsError(f"{_CONFIG}: {exc}") from None

    @property
    def celery_app(self) -> Any:
        """The Celery app that events go through.

        The one that `Optimizely.init_app` was given, else ``app.extensions["celery"]``, else one
        made of ``app.config["CELERY"]``, else the one that is current in this process.
        """
        # When used, not before: the factory may set it up after this extension.
        found = self._given or self._app.extensions.get("celery")
        if isinstance(found, celery.Celery):
            return found
        config = self._app.config.get("CELERY")
        if config is None:
            return current_celery_app()
        if "celery" not in self._made:
            made = celery.Celery(
                self._app.import_name, include=["optly_celery.tasks"], set_as_current=False
            )
            made.config_from_object(config)
            # Two threads at once may make two; the one that is kept is the one that both return.
            self._made.setdefault("celery", made)
        return self._made["celery"]

    @property
    def user(self) -> OptimizelyUserContext:
        """The request's user context: the same one as long as the request lasts.

        Raises:
            ContextError: there is no request.
            SettingsError: there is no function for the user id, or what it returned is no text.
        """
        if not has_request_context():
            raise ContextError(
                "optimizely.user belongs to a request, and there is none: elsewhere, such as in a "
                "task or a command, use optimizely.client.create_user_context(user_id)"
            )
        if NAME not in g:
            setattr(g, NAME, self._new_user())
        return g.get(NAME)

    def _new_user(self) -> Any:
        if self._user_id is None:
            raise SettingsError(
                f"{_CONFIG} has no user_id: a function that returns the id of the request's user"
            )
        user_id = self._user_id()
        if not isinstance(user_id, str) or not user_id:
            # Not the value: it is, or stands for, a person's.
            raise SettingsError(
                f"the user_id function of {_CONFIG} returned {_kind(user_id)}, which is no id: it "
                "is to return text that stays the same for one visitor"
            )
        attributes = self._attributes() if self._attributes else {}
        if not isinstance(attributes, Mapping):
            raise SettingsError(
                f"the attributes function of {_CONFIG} returned {_kind(attributes)}, no dictionary"
            )
        return self.client.create_user_context(user_id, dict(attributes))


class Optimizely:
    """The extension. One object serves any number of apps.

    ``user_id`` and ``attributes`` are functions that are called within a request, once in each
    that asks for `user`; ``app.config["OPTIMIZELY"]`` may hold others for one app.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        user_id: UserId | None = None,
        attributes: Attributes | None = None,
        celery_app: celery.Celery | None = None,
    ) -> None:
        self._defaults = {"user_id": user_id, "attributes": attributes}
        self._celery_app = celery_app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, *, celery_app: celery.Celery | None = None) -> None:
        """Set an app up from ``app.config["OPTIMIZELY"]``; opens and starts nothing.

        That is a dictionary of `optimizely.optimizely.Optimizely`'s arguments, at least
        ``sdk_key`` or ``datafile``, and of ``user_id`` and ``attributes``. Adds
        ``flask optimizely …``.

        Raises:
            SettingsError: the configuration is wrong, or the app has been set up before.
        """
        if NAME in app.extensions:
            raise SettingsError(
                f"the app {app.name!r} has an Optimizely extension already: call init_app once"
            )
        config = self._defaults | _config_of(app)
        app.extensions[NAME] = state = AppState(app, celery_app or self._celery_app, config)
        app.cli.add_command(_Commands(lambda: state.celery_app))

    @property
    def client(self) -> Client:
        """The client of the current app.

        Raises:
            ContextError: no app is current, or it was not set up.
        """
        return _state().client

    @property
    def user(self) -> OptimizelyUserContext:
        """The user context of the current request, as `AppState.user` tells."""
        return _state().user


class _Commands(click.Group):
    """``flask optimizely …``: the commands of ``optly-celery``, about the Flask app's Celery app.

    Imported when asked for: that takes 0.1 s, which a web server's start should not pay.
    """

    def __init__(self, celery_app: Callable[[], Any]) -> None:
        super().__init__("optimizely", help="Look after the events on their way to Optimizely.")
        self._celery_app = celery_app

    @cached_property
    def _group(self) -> click.Group:
        from ..cli import exits, optimizely  # noqa: PLC0415 - see above

        return exits.CommandGroup(self.name, commands=optimizely.commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group.get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        from ..cli.chosen_app import ChosenApp  # noqa: PLC0415 - see above

        ctx.obj = ChosenApp(self._celery_app)
        return self._group.invoke(ctx)


def _config_of(app: Flask) -> dict[str, Any]:
    config = app.config.get("OPTIMIZELY")
    if config is None:
        raise SettingsError(f"{_CONFIG} is not set: give it at least an sdk_key or a datafile")
    if not isinstance(config, Mapping):
        raise SettingsError(f"{_CONFIG} is {_kind(config)}, no dictionary")
    if not any(config.get(key) for key in ("sdk_key", "datafile", "config_manager")):
        raise SettingsError(f"{_CONFIG} has neither an sdk_key nor a datafile: one is needed")
    for key in _FLASK_KEYS:
        if config.get(key) is not None and not callable(config[key]):
            raise SettingsError(
                f"{key} in {_CONFIG} is {_kind(config[key])}: it has to be a function, which is "
                "called within each request"
            )
    return dict(config)


def _state() -> AppState:
    if not has_app_context():
        raise ContextError(
            "the Optimizely extension belongs to an app, and none is current: use it within a "
            "request, or within app.app_context()"
        )
    found = current_app.extensions.get(NAME)
    if not isinstance(found, AppState):
        raise ContextError(
            f"the app {current_app.name!r} has no Optimizely extension: call init_app(app)"
        )
    return found


def _kind(value: object) -> str:
    if value is None or value == "":
        return "None" if value is None else "empty text"
    return f"a value of type {type(value).__name__}"
