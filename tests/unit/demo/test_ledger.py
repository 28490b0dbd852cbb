"""The account of a run, from its records."""

import pytest

from optly_celery.demo.ledger import Books


@pytest.fixture
def books():
    """Three events, each dispatched in 2 ms."""
    books = Books()
    for uuid in "abc":
        books.dispatch([uuid], 0.002)
    return books


def close(books, **dropped):
    return books.close(dropped=dropped, took_s=1.0)


def test_an_event_with_a_2xx_answer_is_delivered(books):
    """Whatever it was answered before."""
    for status in (503, None, 204):
        books.post(["a"], status)

    ledger = close(books)

    assert (ledger.delivered, ledger.retried, ledger.duplicates) == (1, 1, 0)
    assert ledger.posts == {"503": 1, "None": 1, "204": 1}


def test_a_second_2xx_answer_is_a_duplicate(books):
    """It is counted, and is no second delivery."""
    for _ in range(3):
        books.post(["a"], 204)

    ledger = close(books)

    assert (ledger.delivered, ledger.duplicates, ledger.retried) == (1, 2, 0)


def test_a_failure_without_another_post_is_no_retry(books):
    """Retried is what was posted again."""
    books.post(["a"], 503)

    assert close(books).retried == 0


def test_a_post_of_several_events_settles_each(books):
    """A batch is one POST."""
    books.post(["a", "b", "c"], 204)

    ledger = close(books)

    assert (ledger.delivered, ledger.posts, ledger.lost) == (3, {"204": 1}, 0)


def test_what_is_neither_delivered_nor_kept_is_lost(books):
    """The three columns sum up to what was dispatched."""
    books.post(["a"], 204)
    books.post(["b"], 400)
    books.keep(["b"], "http_400")

    ledger = close(books, broker_timeout=1)

    assert (ledger.dispatched, ledger.delivered, ledger.dead_letters, ledger.lost) == (3, 1, 1, 1)
    assert ledger.dead_letter_reasons == {"http_400": 1}
    assert ledger.dropped == {"broker_timeout": 1}


def test_an_event_both_kept_and_delivered_counts_once(books):
    """As after a crash between the two."""
    books.post(["a", "b", "c"], 204)
    books.keep(["c"], "http_400")

    ledger = close(books)

    assert (ledger.delivered, ledger.dead_letters, ledger.lost) == (3, 0, 0)


def test_events_of_somebody_else_count_nowhere(books):
    """A shared broker or port may hold them."""
    books.post(["stranger"], 503)
    books.post(["stranger"], 204)
    books.keep(["another"], "http_400")

    ledger = close(books)

    assert (ledger.delivered, ledger.dead_letters, ledger.retried, ledger.lost) == (0, 0, 0, 3)


def test_open_events_are_counted_down_as_they_settle(books):
    """What the tour waits for."""
    books.post(["a"], 204)
    books.keep(["b"], "http_400")

    assert (books.settled(), books.open()) == (2, 1)


@pytest.mark.parametrize(
    ("delivered", "kept", "balances"), [("ab", "c", True), ("abc", "", False), ("ab", "", False),
                                        ("a", "bc", False)],
)  # fmt: skip
def test_a_ledger_balances_when_the_poisoned_alone_were_kept(books, delivered, kept, balances):
    """Nothing lost, and no dead letter that nobody expected."""
    books.post(list(delivered), 204)
    books.keep(list(kept), "http_400")

    assert close(books).balances(poisoned=1) is balances


def test_percentiles_are_calls_that_were_made():
    """Nearest rank, in milliseconds."""
    books = Books()
    for number in range(1, 101):
        books.dispatch([str(number)], number / 1000)

    ledger = close(books)

    assert (ledger.dispatch_p50_ms, ledger.dispatch_p99_ms) == (50.0, 99.0)


def test_a_run_without_events_has_a_ledger():
    """All of it zero."""
    assert close(Books()).dispatch_p99_ms == 0.0
