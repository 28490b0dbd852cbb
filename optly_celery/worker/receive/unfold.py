"""Decompression that ends: of what comes from the deliver queue, to a limit.

kombu decompresses a message when it makes one, and a megabyte may unfold to gigabytes.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kombu import compression

MOST_BYTES = 16 * 1024 * 1024
"""What a message may unfold to: more than four times of what the Event API takes as one object."""

# A window of this size is what a decompressor may take beside; xz -9 wants 65 MB.
_MOST_MEMORY_BYTES = 128 * 1024 * 1024

_limited: ContextVar[bool] = ContextVar("limited", default=False)


class TooLargeError(ValueError):
    """It unfolds to more than the limit, or cannot be unfolded to a limit."""


@contextmanager
def limited() -> Iterator[None]:
    """Within this block, and this thread or greenlet, kombu decompresses to the limit alone."""
    token = _limited.set(True)
    try:
        yield
    finally:
        _limited.reset(token)


def install() -> None:
    """Put the limit before every way of decompression that kombu knows, by its documented register.

    Where nobody asks for the limit, each does as it did.
    """
    for name in compression.encoders():
        stock = compression.get_decoder(name)
        if not hasattr(stock, "unlimited"):
            compression.register(compression.get_encoder(name)[0], _decoder(name, stock), name)


def _decoder(name: str, stock: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def decode(body: Any) -> bytes:
        if not _limited.get():
            return stock(body)
        start = _STREAMS.get(name)
        if start is None:
            raise TooLargeError(f"{name} is not read to a limit")
        return _unfold(body, start)

    decode.unlimited = stock  # type: ignore[attr-defined]
    return decode


def _unfold(body: bytes, start: Callable[[], Any]) -> bytes:
    """One stream behind another, as the libraries' own functions do it."""
    unfolded, rest = bytearray(), bytes(body)
    while rest:
        stream = start()
        while not stream.eof:
            room = MOST_BYTES + 1 - len(unfolded)
            part = stream.decompress(rest, room)
            rest = getattr(stream, "unconsumed_tail", b"")
            unfolded += part
            if len(unfolded) > MOST_BYTES:
                raise TooLargeError(f"more than {MOST_BYTES} bytes")
            if not part and not rest and not stream.eof:
                raise EOFError("cut off")
        rest = stream.unused_data
    return bytes(unfolded)


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            zstd: Any = importlib.import_module(name)
        except ImportError:
            continue
        limit = {zstd.DecompressionParameter.window_log_max: 27}
        return zstd.ZstdDecompressor(options=limit)
    raise TooLargeError("no zstd that can be limited")


_STREAMS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY_BYTES),
    "application/zstd": _zstd,
}
