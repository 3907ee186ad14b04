"""PNGs made small: a screenshot has a handful of colours and their shades, so 256 of them will do.

Only what chromium writes is read: 8 bits a channel, three or four channels, not interlaced (RFC 2083).
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = 256


def as_palette(png: bytes) -> bytes:
    """The same picture with at most 256 colours: the most frequent ones, each other one as the nearest of these."""
    width, height, channels, data = _read(png)
    rows = list(_rows(zlib.decompress(data), width * channels, channels))
    assert len(rows) == height
    pixels = [[row[at : at + 3] for at in range(0, len(row), channels)] for row in rows]
    counted = Counter(pixel for row in pixels for pixel in row)
    palette = _chosen(counted)
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in counted:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda number: _distance(palette[number], colour))
    body = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(body, 9)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts)


def _chosen(counted: Counter[bytes]) -> list[bytes]:
    """Frequent colours that differ: shades that the eye cannot tell apart stand for each other."""
    chosen: list[bytes] = []
    for nearest in (12, 0):
        for colour, _ in counted.most_common():
            if len(chosen) == _COLOURS:
                return chosen
            if colour not in chosen and all(_distance(colour, other) > nearest for other in chosen):
                chosen.append(colour)
    return chosen


def _distance(a: bytes, b: bytes) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _read(png: bytes) -> tuple[int, int, int, bytes]:
    assert png.startswith(_SIGNATURE)
    width, height, depth, colour_type, *_, interlace = struct.unpack(">IIBBBBB", png[16:29])
    assert (depth, interlace) == (8, 0)
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return width, height, {2: 3, 6: 4}[colour_type], data


def _rows(data: bytes, stride: int, channels: int) -> Iterator[bytes]:
    """Lines without their filters (RFC 2083, section 6)."""
    above = bytearray(stride)
    for at in range(0, len(data), stride + 1):
        kind, line = data[at], bytearray(data[at + 1 : at + 1 + stride])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            up, corner = above[i], above[i - channels] if i >= channels else 0
            line[i] = (line[i] + _predicted(kind, left, up, corner)) & 0xFF
        yield bytes(line)
        above = line


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    match kind:
        case 0:
            return 0
        case 1:
            return left
        case 2:
            return up
        case 3:
            return (left + up) // 2
        case _:
            guess = left + up - corner
            return min((left, up, corner), key=lambda value: abs(guess - value))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
