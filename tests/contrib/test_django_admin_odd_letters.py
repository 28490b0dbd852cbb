"""The admin site's dead letters, where somebody else has written some of them."""

from __future__ import annotations

import html
import logging
import re

import pytest

from optly_celery.dead_letters.letter_id import shown
from optly_celery.runtime.process import runtime_of

from ..letters import keep
from ..odd_letters import LANGUAGE, OBEYED, ODD, is_obeyed, write
from .django_site import _migrated, database
from .test_django_admin import EVENT, LIST, PURGE, REPLAY, VIEW, texts, visit

__all__ = ["_migrated", "database", "visit"]

EACH = pytest.mark.parametrize("odd", ODD, ids=[odd.name for odd in ODD])


@pytest.fixture
def dead(app):
    """The store, with a good letter in it."""
    store = runtime_of(app).dead_letters
    keep(store, 1)
    return store


def act(browser, action, *ids):
    data = {"action": action, "id": ids, "confirmed": "yes"}
    return browser.post(f"{LIST}act/", data, follow=True)


def page_of(response):
    """What the browser shows: every answer is a page, and holds nothing that would be obeyed."""
    assert response.status_code == 200
    page = html.unescape(response.content.decode())
    assert not is_obeyed(page, lines=True)
    return page


@EACH
def test_the_list_shows_an_odd_letter_and_its_link_leads_to_it(visit, dead, broker, odd):
    """Beside its neighbour, and with nothing on either page that would be obeyed."""
    (neighbour,) = dead.ids()
    write(broker, odd)
    odd_id = next(text for text in dead.ids() if text != neighbour)
    browser = visit(VIEW, EVENT)

    page = browser.get(LIST)
    assert set(re.findall('name="id" value="([^"]*)"', page_of(page))) == {neighbour, odd_id}
    assert sorted(letter.reason for letter in page.context["letters"]) == sorted(
        ["http_400", odd.reason]
    )
    for link in re.findall(rf'href="({LIST}[^"]+/)"', page.content.decode()):
        assert "Dead letter " in page_of(browser.get(html.unescape(link)))
    found = browser.get(LIST, {"reason": odd.reason})
    assert odd_id in [letter.id for letter in found.context["letters"]]


@EACH
def test_an_odd_letter_can_be_replayed_and_purged(visit, dead, broker, odd):
    """Where it holds an event; its neighbour by the same click."""
    write(broker, odd)
    browser = visit(VIEW, REPLAY, PURGE)
    page_of(browser.post(f"{LIST}act/", {"action": "replay", "id": dead.ids()}))

    response = act(browser, "replay", *dead.ids())
    page_of(response)
    published = broker.client().llen("optimizely")
    assert published >= 1
    assert published + len(dead.ids()) == 2
    if odd.is_event is not None:
        assert published == 1 + odd.is_event

    write(broker, odd)
    assert texts(act(browser, "purge", *dead.ids())) == ["1 dead letter deleted, undelivered."]
    assert dead.ids() == []


def test_all_odd_letters_together_are_listed_and_purged(visit, dead, broker):
    """The page shows the newest hundred; the reasons count all of them."""
    write(broker, *ODD)
    browser = visit(VIEW, PURGE)

    page = browser.get(LIST)
    assert len(page.context["letters"]) == 100
    assert sum(page.context["reasons"].values()) == len(ODD) + 1
    page_of(page)
    bad = browser.get(LIST, {"reason": "unreadable"}).context["letters"]
    assert {letter.reason for letter in bad} == {"unreadable"}
    done = texts(act(browser, "purge", *dead.ids()))
    assert done == [f"{len(ODD) + 1} dead letters deleted, undelivered."]


def test_what_is_of_a_language_stays_as_it_is(visit, dead, broker):
    """Escapes are for what would be obeyed, not for what is not English."""
    event = next(odd for odd in ODD if odd.name == "event obeyed")
    write(broker, next(odd for odd in ODD if odd.name == "texts of language"), event)
    browser = visit(VIEW, EVENT)

    assert LANGUAGE in page_of(browser.get(LIST))
    page = page_of(browser.get(f"{LIST}{shown(event.id)}/"))
    assert "\\u001b[2J\\u0007\\r\\n\\u007f\\u009b1m\\u0085\\u2028\\u2029\\u202emoc.live" in page


@pytest.mark.parametrize("key", ["events", "facts", "times"])
def test_a_key_of_another_type_is_said_on_each_page(visit, dead, broker, key):
    """Not an error page, from which nobody learns anything."""
    letter_id = dead.ids()[0]
    name = f"optly_celery:dead-letters:{key}"
    broker.client().delete(name)
    broker.client().xadd(name, {"a": "b"})
    browser = visit(VIEW, EVENT, REPLAY, PURGE)

    assert "of another type" in page_of(browser.get(LIST))
    for action in ("replay", "purge"):
        page_of(act(browser, action, letter_id))
    page_of(browser.get(f"{LIST}{letter_id}/", follow=True))


def test_an_id_from_anywhere_forges_no_line(visit, dead, caplog):
    """Neither in a message on the page nor in the log that says who has looked."""
    browser = visit(VIEW, EVENT, PURGE)
    typed = OBEYED.encode(errors="replace").decode()
    with caplog.at_level(logging.INFO, "optly_celery"):
        response = act(browser, "purge", typed)
        page_of(response)
        page_of(browser.get(f"{LIST}a%0Ab%1B[2J%E2%80%AE/", follow=True))

    assert not any(is_obeyed(record.getMessage()) for record in caplog.records)


@pytest.mark.parametrize("status", ["9" * 5000, "٣٣٣", "-1", "1e3", "\x00", "4 0"])
def test_a_status_that_is_none_asks_for_nothing(visit, dead, status):
    """Whatever is typed into the form, the list comes."""
    assert len(visit(VIEW).get(LIST, {"status": status}).context["letters"]) == 1
