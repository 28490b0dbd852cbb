"""Dead letters on the admin site: who may see what, and what the buttons do."""

from __future__ import annotations

import pytest
from django.test import Client

from optly_celery.event.event import Event
from optly_celery.runtime.process import runtime_of

from ..conftest import celery_app
from ..letters import kept
from ..support import US_URL, free_port, params_of
from .django_site import _migrated, database

__all__ = ["_migrated", "database"]

LIST = "/admin/optly_celery/deadletter/"
VIEW, EVENT = "view_deadletter", "view_deadletter_event"
REPLAY, PURGE = "replay_deadletter", "delete_deadletter"


@pytest.fixture
def dead(app):
    """The store, with a letter of each of two reasons."""
    store = runtime_of(app).dead_letters
    for reason, status in (("http_400", 400), ("attempts_exhausted", None)):
        event = Event.of(US_URL, params_of(f"visitor of {reason}", uuid=reason))
        store.keep(kept(event, f"task-{reason}", reason=reason, status=status, attempts=3))
    return store


@pytest.fixture
def visit(database, dead):
    """A browser of a member of staff with these permissions."""
    from django.contrib.auth.models import Permission, User

    def log_in(*names):
        user = User.objects.create_user(f"user-{len(names)}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        browser = Client()
        browser.force_login(user)
        return browser

    return log_in


def texts(response):
    return [str(message) for message in response.context["messages"]]


def test_the_list_shows_the_letters_and_no_personal_data(visit):
    """Who may see the list learns what failed and why, never whose event it was."""
    page = visit(VIEW).get(LIST).content.decode()

    assert page.count('name="id"') == 2
    assert "http_400 (1)" in page
    assert "POST logx.optimizely.com, project 111001, 1 event" in page
    assert "visitor of" not in page


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("reason=http_400", ["http_400"]),
        ("status=400", ["http_400"]),
        ("age=1h", ["attempts_exhausted", "http_400"]),
        ("age=over-7d", []),
        ("status=none&age=none", ["attempts_exhausted", "http_400"]),
    ],
)
def test_the_list_is_filtered_by_reason_status_and_age(visit, query, expected):
    """Every filter has to hold; one that is no status or age asks for nothing."""
    response = visit(VIEW).get(f"{LIST}?{query}")

    assert sorted(letter.reason for letter in response.context["letters"]) == expected


def test_an_event_is_shown_to_whoever_may_see_personal_data(visit, dead):
    """Looking at letters is one permission, seeing the visitor in them is another."""
    letter_id = dead.ids()[0]

    assert "visitor of" not in visit(VIEW).get(f"{LIST}{letter_id}/").content.decode()
    assert "visitor of" in visit(VIEW, EVENT).get(f"{LIST}{letter_id}/").content.decode()


def test_the_endpoint_s_words_are_shown_to_whoever_may_see_personal_data(visit, dead):
    """They may quote the visitor; and they are text, whatever they look like."""
    event = Event.of(US_URL, params_of(uuid="u-words"))
    words = "<script>visitor of words</script>"
    letter_id = dead.keep(kept(event, "t", reason="http_400", status=400, answer=words))

    assert "visitor of" not in visit(VIEW).get(f"{LIST}{letter_id}/").content.decode()
    browser = visit(VIEW, EVENT)
    page = browser.get(f"{LIST}{letter_id}/").content.decode()
    assert "&lt;script&gt;visitor of words&lt;/script&gt;" in page
    assert "<script>visitor" not in page
    assert "words" not in browser.get(LIST).content.decode()


def test_without_permission_there_is_nothing_to_see(visit, dead):
    """Neither the list nor a letter whose address is known; a stranger is sent to log in."""
    browser = visit()

    assert browser.get(LIST).status_code == 403
    assert browser.get(f"{LIST}{dead.ids()[0]}/").status_code == 403
    assert Client().get(LIST).status_code == 302


@pytest.mark.parametrize(("action", "needed"), [("replay", REPLAY), ("purge", PURGE)])
def test_each_action_has_a_permission_of_its_own(visit, dead, action, needed):
    """Without it there is no button, and a request made by hand changes nothing."""
    other = visit(VIEW, EVENT, *({REPLAY, PURGE} - {needed}))
    data = {"action": action, "id": dead.ids(), "confirmed": "yes"}

    assert f'value="{action}"' not in other.get(LIST).content.decode()
    assert other.post(f"{LIST}act/", data).status_code == 403
    assert f'value="{action}"' in visit(VIEW, needed).get(LIST).content.decode()
    assert len(dead.ids()) == 2


def test_replay_publishes_the_chosen_letters_again(visit, dead, broker):
    """Those alone: the event is back in the queue and its letter gone; the other one stays."""
    browser, letter_id = visit(VIEW, REPLAY), dead.ids()[0]
    data = {"action": "replay", "id": letter_id, "confirmed": "yes"}
    response = browser.post(f"{LIST}act/", data, follow=True)

    assert texts(response) == ["1 dead letter published again."]
    assert broker.client().llen("optimizely") == 1
    assert letter_id not in dead.ids()
    assert len(dead.ids()) == 1


def test_purge_deletes_the_chosen_letters(visit, dead, broker):
    """Nothing is published, and an id that is there no more is told of, no error."""
    data = {"action": "purge", "id": [*dead.ids(), "unknown"], "confirmed": "yes"}
    response = visit(VIEW, PURGE).post(f"{LIST}act/", data, follow=True)

    assert texts(response) == [
        "2 dead letters deleted, undelivered.",
        "1 dead letter had left the store meanwhile.",
    ]
    assert broker.client().llen("optimizely") == 0
    assert dead.ids() == []


@pytest.mark.parametrize("action", ["replay", "purge"])
def test_nothing_happens_before_the_answer(visit, dead, action):
    """The first POST asks, with the chosen ids in the question's form."""
    browser = visit(VIEW, REPLAY, PURGE)
    page = browser.post(f"{LIST}act/", {"action": action, "id": dead.ids()}).content.decode()

    assert f"Yes, {action}" in page
    assert all(letter_id in page for letter_id in dead.ids())
    assert len(dead.ids()) == 2


def test_an_action_is_a_post_with_a_token(visit, dead):
    """No page elsewhere can have a logged-in member of staff purge, by a form or by a link."""
    browser = visit(VIEW, PURGE)
    data = {"action": "purge", "id": dead.ids(), "confirmed": "yes"}
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = browser.cookies

    assert strict.post(f"{LIST}act/", data).status_code == 403
    assert browser.get(f"{LIST}act/", data).status_code == 405
    assert len(dead.ids()) == 2


def test_nothing_chosen_is_said(visit):
    """A button that was pressed too early is answered with a sentence, not with an error."""
    response = visit(VIEW, PURGE).post(f"{LIST}act/", {"action": "purge"}, follow=True)

    assert texts(response) == ["No dead letter was chosen."]


def test_an_unknown_letter_leads_back_to_the_list(visit):
    """A link in an old mail, to a letter that has been replayed since, is no error page."""
    response = visit(VIEW).get(f"{LIST}nothing-like-it/", follow=True)

    assert "no dead letter has the id" in texts(response)[0]


def test_a_store_that_does_not_answer_is_said_and_does_no_harm(database, visit):
    """The pages come all the same, and say what is wrong without the broker's password."""
    browser = visit(VIEW, REPLAY)
    with celery_app(f"redis://:hush@127.0.0.1:{free_port()}/0"):
        page = browser.get(LIST)
        data = {"action": "replay", "id": "x", "confirmed": "yes"}
        done = browser.post(f"{LIST}act/", data, follow=True)

    assert "cannot be reached" in texts(page)[0]
    assert "hush" not in page.content.decode()
    assert texts(done)[0].startswith("Stopped: ")


def test_the_index_of_the_admin_site_links_to_it(visit):
    """Who may see letters finds them without being told an address."""
    assert LIST in visit(VIEW).get("/admin/").content.decode()
