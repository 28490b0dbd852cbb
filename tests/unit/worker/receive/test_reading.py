"""What lies in Redis is read, or it is an error; the script's form and kombu's are the same."""

from __future__ import annotations

import json

import pytest

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.receive.reading import given_back, message_in, note_of, text_in

MESSAGE = {"body": "1", "headers": {"id": "t"}, "properties": {"delivery_tag": "theirs"}}


def as_bytes(value):
    return json.dumps(value).encode()


def test_a_message_keeps_its_senders_tag_and_is_given_one_without():
    """kombu makes no message without; what it is noted by is not in it."""
    assert message_in(as_bytes(MESSAGE), "ours") == MESSAGE
    assert message_in(b'{"properties": {}}', "ours") == {"properties": {"delivery_tag": "ours"}}


@pytest.mark.parametrize("properties", ["absent", None, [], "x", 5])
def test_what_has_no_properties_is_no_message(properties):
    """Nothing else tells a message from any other JSON."""
    made = {} if properties == "absent" else {"properties": properties}

    with pytest.raises(Exception):  # noqa: B017, PT011 - any at all
        message_in(as_bytes(made), "ours")


def test_a_note_is_read_as_kombu_writes_it():
    """By name, or by an exchange; the empty one may be null."""
    assert note_of(as_bytes([MESSAGE, "", "q"])) == (MESSAGE, "", "q")
    assert note_of(as_bytes([MESSAGE, None, "q"])) == (MESSAGE, "", "q")
    assert note_of(as_bytes([MESSAGE, "shop", "shop.events"])) == (MESSAGE, "shop", "shop.events")


@pytest.mark.parametrize(
    "note",
    [
        b"", b"{", b"[]", b"null", b"5", b"\xff", b"[1, 2, 3]", b'[{}, "", 5]', b'[{}, 5, "q"]',
        b'[{}, "", null]', b'[{}, "", "q", 1]', b'[nan, "", "q"]', b'[{"a": "\x01"}, "", "q"]',
        b'[{}, {}, "q"]', b'[[], "", "q"]', b"[" * 90_000,
        b'[{"a": ' + b"[" * 60 + b"]" * 60 + b'}, "", "q"]',
        b'[{"a": [' + b"1," * 200_000 + b'1]}, "", "q"]',
    ],
)  # fmt: skip
def test_what_is_no_note_is_an_error(note):
    """Whoever wrote it: the sweep goes on to the next."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - any at all
        note_of(note)


@pytest.mark.parametrize("queue", ["optimizely", 'a "queue", "of" odd]', "é"])
def test_what_was_in_the_queue_is_found_again_in_its_note(queue):
    """Byte by byte, though neither can be read; of another's note all is kept."""
    item = b'\xff, "", "other"]'

    assert text_in(b"[" + item + b', "", ' + as_bytes(queue) + b"]", queue) == item
    assert text_in(b"[" + item + b', "", "other"]', queue) == b"[" + item + b', "", "other"]'


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize(
    "message",
    [
        {},
        {"headers": None},
        {"headers": []},
        {"properties": 5},
        {"properties": {"delivery_info": 5}},
    ],
)
def test_a_message_without_the_parts_that_are_marked_is_given_back_too(message, swept):
    """As it is; whoever receives it will see what is wrong with it."""
    assert json.loads(given_back(dict(message), swept=swept)) == message


def test_what_is_given_back_is_marked_as_kombu_marks_it():
    """And what a dead worker held besides, for it may have been the reason."""
    made = {"headers": {}, "properties": {"delivery_info": {"exchange": ""}}}

    once = json.loads(given_back(made, swept=False))
    swept = json.loads(given_back(made, swept=True))

    assert once["headers"] == {"redelivered": True}
    assert once["properties"]["delivery_info"] == {"exchange": "", "redelivered": True}
    assert swept["headers"] == {"redelivered": True, SWEPT_HEADER: True}
