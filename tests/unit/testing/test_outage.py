"""A collector that goes away."""

from optly_celery.testing.outage import Outage


def test_an_outage_starts_at_a_request_and_ends_by_the_clock():
    """Requests 1 and 2 pass, 3 and 4 meet the outage, 5 comes after it."""
    times = iter([10.0, 10.0, 11.9, 12.0])
    outage = Outage(starts_at=3, lasts_s=2.0, clock=lambda: next(times))

    answers = [outage("POST", "/", b"") for _ in range(5)]

    assert [a and a.status for a in answers] == [None, None, 503, 503, None]
