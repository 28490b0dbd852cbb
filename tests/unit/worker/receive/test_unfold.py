"""Decompression that ends: kombu unfolds a message when it makes one."""

from __future__ import annotations

import bz2
import importlib
import lzma
import tracemalloc
import zlib

import pytest
from kombu import compression
from kombu.compression import decompress

from optly_celery.worker.receive.unfold import install, limited

MOST_BYTES = 1024 * 1024

PACK = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
}
TEXTS = {
    "short": b'[["u"], {}, {}]',
    "empty": b"",
    "what does not pack": b"".join(n.to_bytes(4, "big") for n in range(0, 2**31, 9999))[:1_000_000],
    "as much as is taken": b"0" * MOST_BYTES,
}
BOMB = b"0" * (MOST_BYTES + 1)


@pytest.fixture(autouse=True)
def kombus_register(monkeypatch):
    """As it was, when a test ends."""
    for register in ("_encoders", "_decoders", "_aliases"):
        monkeypatch.setattr(compression, register, dict(getattr(compression, register)))
    monkeypatch.setattr("optly_celery.worker.receive.unfold.MOST_BYTES", MOST_BYTES)
    install()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", PACK)
def test_what_is_within_the_limit_is_unfolded_as_ever(name, text):
    """Also under kombu's other names for it, and without anybody asking for a limit."""
    packed = PACK[name](text)

    with limited():
        assert decompress(packed, name) == text
    assert decompress(packed, name) == text


@pytest.mark.parametrize("alias", ["gzip", "zlib", "bzip2", "bzip", "lzma", "xz"])
def test_other_names_have_the_limit_too(alias):
    """A sender chooses which of them it writes."""
    packed, _ = compression.compress(BOMB, alias)

    with limited(), pytest.raises(ValueError, match="more than"):
        decompress(packed, alias)


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_is_refused_before_it_takes_the_memory(name):
    """Of many times the limit little more is held than that, and the format's own window."""
    packed = PACK[name](b"\0" * (64 * MOST_BYTES))
    tracemalloc.start()
    try:
        with limited(), pytest.raises(ValueError, match="more than"):
            decompress(packed, name)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 16 * MOST_BYTES


def test_a_bomb_in_many_pieces_is_one_too():
    """Streams behind one another are unfolded as one, and count together."""
    packed = bz2.compress(b"0" * (MOST_BYTES // 2)) * 3

    with limited(), pytest.raises(ValueError, match="more than"):
        decompress(packed, "bzip2")


def test_a_window_larger_than_a_worker_is_refused():
    """Some formats name the memory that they want before the first byte."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 1024 * 1024}]
    packed = lzma.compress(b"x", format=lzma.FORMAT_XZ, filters=filters)

    with limited(), pytest.raises(lzma.LZMAError):
        decompress(packed, "xz")


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("damage", ["cut", "changed", "none at all", "more behind it"])
def test_what_is_damaged_is_an_error_and_no_endless_loop(name, damage):
    """Then the message is kept."""
    packed = PACK[name](b"a text that is long enough to be cut" * 9)
    damaged = {
        "cut": packed[:-5],
        "changed": packed[: len(packed) // 2] + b"\xff\x00\xff" + packed[len(packed) // 2 :],
        "none at all": b"visitor-1",
        "more behind it": packed + b"visitor-1",
    }[damage]

    with limited(), pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
        decompress(damaged, name)


def test_a_way_that_has_no_limit_is_refused_where_one_is_asked_for():
    """Another program may have given kombu one of its own; its own messages it unfolds."""
    compression.register(bytes, lambda body: body * 2, "application/x-double", ["double"])
    install()

    assert decompress(b"ab", "double") == b"abab"
    with limited(), pytest.raises(ValueError, match="x-double"):
        decompress(b"ab", "double")


def test_zstandard_has_the_limit_where_it_is_there():
    """Python 3.14 has it, kombu takes the backport as well."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        if "application/zstd" not in compression.encoders():
            continue
        with limited():
            assert decompress(zstd.compress(b"text"), "zstd") == b"text"
            with pytest.raises(ValueError, match="more than"):
                decompress(zstd.compress(BOMB), "zstd")
        return
    with limited(), pytest.raises(KeyError):
        decompress(b"", "zstd")


def test_installing_twice_is_installing_once():
    """Two workers in one process."""
    before = compression.get_decoder("gzip")

    install()

    assert compression.get_decoder("gzip") is before
