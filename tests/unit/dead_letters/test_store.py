"""What a dead letter is made of, and where its store is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from optly_celery.dead_letters import letter as letters
from optly_celery.dead_letters.letter import DeadLetter, Filter, WholeLetter
from optly_celery.dead_letters.redis_url import address, for_redis_py
from optly_celery.dead_letters.store import DeadLetters
from optly_celery.errors import SettingsError
from optly_celery.event.event import Event

from ...letters import event_of, kept

KEPT = kept(
    event_of(1), reason="attempts_exhausted", error="http_503", status=503, attempts=301
)  # fmt: skip
LAST_AT = 1_700_086_400.5


def letter(**changes):
    text = letters.letter_text(replace(KEPT, **changes), LAST_AT)
    return letters.letter_of("id-1", text)


def test_what_is_known_comes_back_as_it_was_written():
    """Times are aware, in UTC; the event is there only as its summary."""
    found = letter()

    assert found.as_dict() == {
        "id": "id-1",
        "task_id": "t",
        "reason": "attempts_exhausted",
        "error": "http_503",
        "status": 503,
        "attempts": 301,
        "first_at": "2023-11-14T22:13:20+00:00",
        "last_at": "2023-11-15T22:13:20+00:00",
        "summary": event_of(1).summary,
    }


def test_what_is_known_holds_no_personal_data():
    """Listing letters moves no visitor id or attribute out of the store."""
    text = letters.letter_text(KEPT, LAST_AT)

    assert "visitor-1" not in text
    assert "secret" not in text


def test_repr_of_a_whole_letter_holds_no_personal_data():
    """It may end up in a log or a debugger's mail."""
    whole = WholeLetter(**vars(letter()), event=event_of(1), answer="visitor-1 is too long")

    assert "visitor-1" not in repr(whole)
    assert whole.as_dict()["event"]["params"] == event_of(1).params


def test_an_event_comes_back_byte_for_byte():
    """What is replayed is what was refused: key order, big numbers and unicode included."""
    before = event_of(1, big=12345678901234567890123, tiny=1e-300, name="Zoë \U0001f600 \ud800")

    after = letters.event_from(letters.event_text(before))

    assert (after, after.body) == (before, before.body)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "no",
        "Zoë \U0001f600",
        "\x1b[31mred\x1b[0m\r\n\0",
        "\ud800",
        "x" * 2000,
        '{"url": 1}',
    ],
)
def test_an_endpoint_s_words_come_back_as_they_were(answer):
    """Beside the event, where personal data is; not among the facts, which are listed."""
    one = kept(event_of(1), "t", answer=answer)

    text = letters.event_text(one.event, one.answer)

    assert (letters.event_from(text), letters.answer_from(text)) == (one.event, answer)
    assert "answer" not in letters.letter_text(one, LAST_AT)
    assert letters.id_of(one) == letters.id_of(kept(event_of(1), "t"))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"7", b"null", b"{}", b'{"answer": 7}', b'{"answer": ["no"]}', b"\xff"]
)
def test_a_letter_without_words_is_one_all_the_same(text):
    """As those of older versions are, and damaged ones."""
    assert letters.answer_from(text) is None


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1e300, 1e300])
def test_an_impossible_first_time_hides_no_letter(seconds):
    """A foreign producer may have put any number into the message's header."""
    assert letter(first_at=seconds).first_at.year == 1970


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"null", b'{"task_id": 1}'])
def test_damaged_facts_become_a_letter_that_can_be_purged(text):
    """One damaged letter does not end a listing of thousands."""
    found = letters.letter_of("id-1", text)

    assert (found.id, found.reason) == ("id-1", "unreadable")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"url": "u"}', b"7"])
def test_a_damaged_event_is_no_event(text):
    """Replaying it would publish a message that nobody can deliver."""
    assert letters.event_from(text).url is None


def test_same_task_and_event_make_the_same_id():
    """So a redelivered task keeps one letter, and two parts of one batch keep two."""
    one, again, other = (letters.id_of(kept(event_of(n))) for n in (1, 1, 2))

    assert one == again != other
    assert letters.id_of(kept(event_of(1), "t2")) != one


def test_what_is_no_event_can_be_kept_all_the_same():
    """The task's arguments as they were, for a person to look at."""
    strange = Event.raw(7, ["no", "object"], None, {"a": 1})

    assert letters.event_from(letters.event_text(strange)) == strange


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(), True),
        (Filter(reason="attempts_exhausted"), True),
        (Filter(reason="http_503"), False),
        (Filter(status=503), True),
        (Filter(status=400), False),
        (Filter(reason="attempts_exhausted", status=400), False),
    ],
)
def test_a_filter_matches_what_agrees_with_all_of_it(where, expected):
    """An absent condition agrees with everything."""
    assert where.matches(letter()) is expected


@pytest.mark.parametrize(
    ("kombus", "redis_pys"),
    [
        ("redis://u:p%40ss@h:1/2", "redis://u:p%40ss@h:1/2"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis+socket:///run/r.sock?virtual_host=3", "unix:///run/r.sock?db=3"),
        ("unix:///run/r.sock", "unix:///run/r.sock"),
    ],
)
def test_a_broker_url_serves_for_dead_letters_too(kombus, redis_pys):
    """The two libraries spell a few things differently."""
    assert for_redis_py(kombus) == redis_pys
    DeadLetters(kombus, max_age_s=60)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@h:6379/1?password=secret", "redis://h:6379/1"),
        ("rediss://:secret@[::1]:6379", "rediss://[::1]:6379"),
        ("redis://:se%40cr%2Fet@h/1", "redis://h/1"),
        ("redis://:secret@secret@h:1/0", "redis://h:1/0"),
        ("redis://secret@h", "redis://h"),
        ("redis://secret:@h", "redis://h"),
        ("redis://h/0#secret", "redis://h/0"),
        ("unix://secret@/run/r.sock?db=1", "unix:///run/r.sock"),
        ("redis+socket:///r.sock;redis+socket://:secret@/s.sock", "redis+socket:///r.sock"),
        ("redis://h:1/0;redis://:secret@i:2/0", "redis://h:1/0"),
        ("redis://:secret@h/0,redis://:secret@i/0", "redis://h/0"),
        ("amqp://u:secret@h//", "amqp://h//"),
    ],
)
def test_no_password_is_shown(url, shown):
    """An address is for messages and logs."""
    assert address(url) == shown


@pytest.mark.parametrize("url", ["redis://:secret/more@h:1/0", "redis://h:secret/0"])
def test_a_url_that_makes_no_sense_is_a_wrong_setting(url):
    """A sentence names the key, and does not quote what may be half of a password."""
    with pytest.raises(SettingsError, match="optly_dead_letter_url") as caught:
        DeadLetters(url, max_age_s=60)

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_facts_of_a_later_version_can_be_read():
    """During a rolling update both versions look at the same store."""
    text = json.loads(letters.letter_text(KEPT, LAST_AT)) | {"new": 1}

    assert isinstance(letters.letter_of("id-1", json.dumps(text)), DeadLetter)
    assert letters.letter_of("id-1", json.dumps(text)).reason == "attempts_exhausted"
