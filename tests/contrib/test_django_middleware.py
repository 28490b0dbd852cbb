"""Who a visitor is, and what a request learns of it."""

from __future__ import annotations

import asyncio
import re

import pytest
from django.test import AsyncClient, Client

from .django_site import Recorder, _migrated, database, optimizely, recorder

__all__ = ["_migrated", "database", "recorder"]

COOKIE = "optimizely_visitor"


@pytest.fixture
def browser(database, recorder):
    with optimizely():
        yield Client()


def from_header(request):
    return request.headers.get("X-User")


def plan_of(request):
    return {"plan": request.headers.get("X-Plan")}


def test_a_visitor_gets_a_random_id_and_keeps_it(browser):
    """One browser is one visitor, by a number that says nothing about a person, set once."""
    first, second = browser.get("/decide/"), browser.get("/decide/")

    assert re.fullmatch("[0-9a-f]{32}", first.json()["user_id"])
    assert second.json() == first.json()
    assert Recorder.visitors() == [first.json()["user_id"]] * 2
    assert COOKIE not in second.cookies


def test_two_visitors_have_two_ids(browser):
    """Browsers that bring no cookie are not lumped together as one visitor."""
    assert browser.get("/decide/").json() != Client().get("/decide/").json()


def test_the_cookie_is_for_this_site_alone_and_not_for_scripts(browser):
    """It lasts half a year, and travels over HTTPS alone where the page did."""
    cookie = browser.get("/decide/", secure=True).cookies[COOKIE]

    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"
    assert cookie["max-age"] == 180 * 86_400
    assert cookie["domain"] == ""
    assert not Client().get("/decide/").cookies[COOKIE]["secure"]


def test_a_page_without_an_experiment_sets_no_cookie_and_stays_cacheable(browser):
    """Asking nothing about the visitor costs nothing: a shared cache may go on serving it."""
    response = browser.get("/plain/")

    assert not response.cookies
    assert not response.has_header("Vary")


def test_a_page_that_depends_on_the_visitor_says_so_to_caches(browser):
    """Or a shared cache would show one visitor's variation to the next."""
    assert "Cookie" in browser.get("/decide/")["Vary"]


@pytest.mark.parametrize("value", ["me@example.com", "x" * 4000, "", "ABCDEF" * 6])
def test_a_cookie_of_another_form_is_not_sent_to_optimizely(browser, value):
    """It may hold anything, personal data included."""
    browser.cookies[COOKIE] = value

    assert re.fullmatch("[0-9a-f]{32}", browser.get("/decide/").json()["user_id"])


def test_a_function_of_the_project_says_who_a_visitor_is(browser):
    """A project with ids of its own uses those, and then no cookie is set."""
    with optimizely(user_id=f"{__name__}.from_header"):
        response = browser.get("/decide/", headers={"X-User": "user-7"})

    assert response.json()["user_id"] == "user-7"
    assert not response.cookies


def test_where_that_function_knows_nobody_the_cookie_counts(browser):
    """Its None makes neither an error nor one visitor of all strangers."""
    with optimizely(user_id=from_header):
        response = browser.get("/decide/")

    assert response.json()["user_id"] == response.cookies[COOKIE].value


def test_attributes_are_a_dictionary_or_a_function_of_the_request(browser):
    """In either form audiences and results see them, with the values of this very request."""
    with optimizely(attributes=plan_of):
        browser.get("/decide/", headers={"X-Plan": "team"})
    with optimizely(attributes={"plan": "free"}):
        browser.get("/decide/")

    sent = [event.params["visitors"][0]["attributes"] for event in Recorder.events]
    plans = [a["value"] for group in sent for a in group if a.get("key") == "plan"]
    assert plans == ["team", "free"]


def test_an_account_can_be_the_visitor(browser):
    """Whoever has logged in decides alike on all devices; until then the cookie counts."""
    from django.contrib.auth.models import User

    user = User.objects.create_user("ann")
    with optimizely(user_id="optly_celery.contrib.django.visitors.account"):
        before = browser.get("/decide/").json()["user_id"]
        browser.force_login(user)
        after = browser.get("/decide/").json()["user_id"]

    assert (len(before), after) == (32, str(user.pk))


def test_logging_in_does_not_change_the_visitor(browser):
    """Else the conversion after the login would be another visitor's than the impression."""
    from django.contrib.auth.models import User

    before = browser.get("/decide/").json()
    browser.force_login(User.objects.create_user("ann"))

    assert browser.get("/decide/").json() == before


def test_the_session_key_is_nobodys_id(browser):
    """Whoever has it is logged in, so it must not leave the site."""
    from django.contrib.auth.models import User

    browser.force_login(User.objects.create_user("ann"))
    browser.get("/decide/")

    assert browser.session.session_key not in str([event.params for event in Recorder.events])


@pytest.mark.parametrize("page", ["/decide/", "/adecide/"])
def test_an_async_stack_serves_sync_and_async_views(browser, page):
    """Under ASGI a visitor is recognised as under WSGI, whichever kind of view asks."""

    async def visit():
        client = AsyncClient()
        first = await client.get(page)
        return first, await client.get(page)

    first, second = asyncio.run(visit())

    assert first.json() == second.json()
    assert first.json()["user_id"] == first.cookies[COOKIE].value


def test_an_async_view_may_use_a_function_that_reads_the_database(browser):
    """Which Django forbids in a coroutine, so ``aoptimizely`` runs it in a thread."""
    from django.contrib.auth.models import User

    user = User.objects.create_user("ann")
    session = AsyncClient()
    session.force_login(user)
    with optimizely(user_id="optly_celery.contrib.django.visitors.account"):
        found = asyncio.run(session.get("/adecide/")).json()["user_id"]

    assert found == str(user.pk)


def test_asgi_requests_at_the_same_time_have_visitors_of_their_own(browser):
    """Through the whole ASGI handler, with 20 requests in flight."""

    async def visit():
        clients = [AsyncClient() for _ in range(20)]
        return await asyncio.gather(*(client.get("/adecide/") for client in clients))

    answers = asyncio.run(visit())
    ids = [answer.json()["user_id"] for answer in answers]

    assert ids == [answer.cookies[COOKIE].value for answer in answers]
    assert len(set(ids)) == 20
