"""What the commands refuse before they ask any server."""

from __future__ import annotations

import pytest
from celery import Celery

from optly_celery.cli import main
from optly_celery.cli.exits import CONFIG, USAGE
from optly_celery.version import __version__

from ...commands import invoke


def run(*arguments, **conf):
    app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(conf)
    return invoke(*arguments, app=app)


@pytest.mark.parametrize("command", ["replay", "purge"])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--yes"],
        ["--all", "--reason", "http_400"],
        ["--all", "some-id"],
        ["some-id", "--older-than", "3d"],
    ],
)
def test_changing_letters_needs_to_know_which(command, arguments):
    """Nothing is guessed, and no half of a command is left out."""
    done = run("dead-letters", command, *arguments)

    assert done.exit_code == USAGE
    assert "either ids, or filters such as --reason http_400, or --all" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--older-than", "3x"], "'3x' is no age"),
        (["--status", "9"], "9 is not in the range"),
        (["--older-than", "3d", "--newer-than", "12h"], "Nothing is older than"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(arguments, says):
    """In a sentence that says what is allowed."""
    done = run("dead-letters", "list", *arguments)

    assert done.exit_code == USAGE
    assert says in done.stderr


@pytest.mark.parametrize("command", [["status"], ["dead-letters", "list"]])
@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({"optly_max_retries": "many"}, "optly_max_retries is 'many'"),
        ({"optly_max_retry": 3}, "did you mean optly_max_retries?"),
        ({"broker_url": "amqp://h"}, "set optly_dead_letter_url"),
        ({"broker_url": "redis://:a/secret@h/0"}, "optly_dead_letter_url"),
    ],
)
def test_a_wrong_setting_is_named(command, conf, says):
    """With the exit code that a worker has for it."""
    done = run(*command, **conf)

    assert done.exit_code == CONFIG
    assert says in done.stderr
    assert "secret" not in done.output


@pytest.mark.parametrize(
    "name", ["no_such_project", "json:no_such_name", "json", "json:dumps", ":", "json.decoder"]
)
def test_an_app_that_is_none_is_a_sentence(name):
    """With a hint at how to name one."""
    done = invoke("-A", name, "status", command=main)

    assert done.exit_code == USAGE
    assert "Name it as for celery itself" in done.stderr


@pytest.mark.parametrize("source", ["1 +", "raise RuntimeError('no licence')", "import not_there"])
def test_a_project_that_does_not_import_is_a_sentence(tmp_path, monkeypatch, source):
    """Whatever it raises."""
    (tmp_path / "broken_shop.py").write_text(source)
    monkeypatch.chdir(tmp_path)

    done = invoke("-A", "broken_shop", "status", command=main)

    assert done.exit_code == USAGE
    assert "'broken_shop' cannot be imported" in done.stderr


@pytest.mark.parametrize("source", ["1 +", "broker_url = undefined", "optly_max_age = 'old'"])
def test_a_configuration_that_does_not_load_is_a_sentence(tmp_path, monkeypatch, source):
    """The celeryconfig.py in the working directory is a program, and may be broken."""
    (tmp_path / "celeryconfig.py").write_text(source)
    monkeypatch.chdir(tmp_path)

    done = invoke("status", command=main)

    assert done.exit_code == CONFIG


@pytest.mark.parametrize(
    "arguments",
    [[], ["status"], ["dead-letters"], ["dead-letters", "replay"], ["demo"]],
    ids=" ".join,
)
def test_help_needs_no_app_and_no_broker(arguments):
    """Not even one that can be imported."""
    done = invoke("-A", "no_such_project", *arguments, "--help", command=main)

    assert done.exit_code == 0
    assert "Usage" in done.output


def test_the_version_is_told():
    """As every command does."""
    assert __version__ in invoke("--version", command=main).output
