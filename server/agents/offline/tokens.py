"""Cutting text into pieces as a model would stream it, and letting them out at a steady speed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta

__all__ = ["Pacer", "clusters", "shorten", "tokens"]

_TOKEN_LENGTH = 6
# Python's \s takes a whole run, so "\r\n" stays together.
_ASCII_TOKENS = re.compile(rf"\s*\S{{1,{_TOKEN_LENGTH}}}|\s+")

_ZERO_WIDTH_JOINER = "\u200d"
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_EXTENDING = (range(0x1F3FB, 0x1F400), range(0xE0020, 0xE0080))  # skin tones, tag characters
_JAMO = range(0x1160, 0x1200)  # vowels and finals, which complete a syllable

_SECOND = timedelta(seconds=1)


def tokens(text: str) -> Iterator[str]:
    """Pieces of ``text``, about as long as a model's tokens; joined, they are the text again.

    A piece is a word or a part of one, with the white space before it, and never ends inside a grapheme cluster.
    """
    if text.isascii():
        yield from _ASCII_TOKENS.findall(text)
        return
    piece, length = "", 0
    for cluster in clusters(text):
        blank = cluster.isspace()
        if length and (blank or length == _TOKEN_LENGTH):
            yield piece
            piece, length = "", 0
        piece += cluster
        length += not blank
    if piece:
        yield piece


def clusters(text: str) -> Iterator[str]:
    """What people take for single characters: a simplified form of the extended grapheme clusters of UAX #29.

    Kept together: combining marks, variation selectors, skin tones, joined emoji, flags, Hangul syllables, CR LF.
    """
    start = 0
    for index in range(1, len(text)):
        if not _joins(text, start, index):
            yield text[start:index]
            start = index
    if text:
        yield text[start:]


def _joins(text: str, start: int, index: int) -> bool:
    """Whether the character at ``index`` belongs to the cluster that began at ``start``."""
    previous, character = text[index - 1], text[index]
    if character < "\u0300":
        return character == "\n" and previous == "\r"
    code = ord(character)
    if code in _REGIONAL_INDICATORS:
        # Two make a flag; a third begins the next one.
        return ord(previous) in _REGIONAL_INDICATORS and index - start == 1
    return (
        _ZERO_WIDTH_JOINER in {previous, character}
        or code in _JAMO
        or any(code in extending for extending in _EXTENDING)
        or unicodedata.category(character) in {"Mn", "Me", "Mc"}
    )


def shorten(text: str, limit: int) -> str:
    """``text`` on one line, cut after ``limit`` characters (as people count them) with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    kept = ""
    for count, cluster in enumerate(clusters(line)):
        if count == limit:
            return kept + "…"
        kept += cluster
    return line


class Pacer:
    """Lets tokens out at ``speed`` a second; 0 is as fast as possible.

    The schedule is kept by the clock, so that a late wake-up is made up for; after a stall of more than a second it
    starts afresh instead of letting everything out at once. Where many tokens are due, the loop still gets its turn.
    """

    _TICK = 0.002  # seconds; shorter waits cost more than they smooth
    _BURST = 32  # tokens between two turns of the event loop

    def __init__(self, speed: float, sleep: Callable[[float], Awaitable[None]], now: Callable[[], datetime]) -> None:
        self._speed = speed
        self._sleep = sleep
        self._now = now
        self._start = now()
        self._released = 0
        self._since_pause = 0

    async def wait(self) -> None:
        """Wait until the next token is due; the first one is due at once."""
        delay = self._delay() if self._speed else 0.0
        if delay >= self._TICK:
            self._since_pause = 0
            await self._sleep(delay)
        elif self._since_pause >= self._BURST:
            self._since_pause = 0
            await self._sleep(0)
        self._released += 1
        self._since_pause += 1

    def _delay(self) -> float:
        """Seconds until the next token is due."""
        elapsed = (self._now() - self._start) / _SECOND
        due = self._released / self._speed
        # Twice the longest wait, as clocks and sleeps are not exact.
        early = 2.0 * (1.0 / self._speed + self._TICK)
        if not due - early <= elapsed <= due + 1.0:
            # The clock was set, or this step stood still: the next token is due one interval from now.
            self._start = self._now()
            self._released = 1 if self._released else 0
            elapsed, due = 0.0, self._released / self._speed
        return due - elapsed
