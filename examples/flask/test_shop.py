"""The shop's own tests: neither broker nor network. Run with ``python -m pytest``."""

from __future__ import annotations

import pytest
from shop import create_app


@pytest.fixture
def browser():
    """Somebody who keeps cookies."""
    return create_app(COLLECTOR_URL=None).test_client()


def test_the_page_shows_what_was_decided(browser, optly_events):
    page = browser.get("/").text

    decision = optly_events.assert_decided("free_shipping", times=1)
    always = decision.variation_key == "always"
    assert ("Free shipping on everything" in page) is always
    assert ("Free shipping from €50" in page) is not always
    assert ("Buy for €12.50" if always else "Buy for €17.40") in page


def test_a_visitor_stays_in_one_variation(browser, optly_events):
    for _ in range(5):
        browser.get("/")

    first, *others = optly_events.decisions("free_shipping")
    assert {(d.user_id, d.variation_key) for d in others} == {(first.user_id, first.variation_key)}


def test_buying_is_tracked_for_the_visitor_who_was_decided_on(browser, optly_events):
    browser.get("/", headers={"Accept-Language": "de"})
    thanks = browser.post("/buy", follow_redirects=True).text

    decision = optly_events.assert_decided("free_shipping", attributes={"language": "de"})
    optly_events.assert_tracked("purchase", user_id=decision.user_id, revenue=1250, times=1)
    assert "Thank you!" in thanks


def test_another_visitor_is_another_user(browser, optly_events):
    browser.get("/")
    browser.post("/another", follow_redirects=True)

    one, two = optly_events.decisions("free_shipping")
    assert one.user_id != two.user_id
    optly_events.assert_not_tracked()


def test_what_arrives_is_what_optimizely_documents(browser, optly_collector):
    browser.get("/")
    browser.post("/buy")

    assert optly_collector.statuses == [204, 204]
    optly_collector.assert_tracked("purchase", tags={"sku": "night-shift-250"})
