from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import RANDOM_BITS, format_timestamp, parse_alias, parse_timestamp, uuid7

UNIX_MS = st.integers(0, 2**48 - 1)
RANDOM = st.integers(0, 2**RANDOM_BITS - 1)


def test_uuid7_is_the_example_of_rfc_9562() -> None:
    # Appendix A.6: 2022-02-22 14:22:22.00 GMT-05:00, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
    assert uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == uuid.UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")


@given(UNIX_MS, RANDOM)
def test_uuid7_keeps_every_bit(unix_ms: int, random_bits: int) -> None:
    made = uuid7(unix_ms, random_bits)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    rand_a, rand_b = made.int >> 64 & 0xFFF, made.int & (1 << 62) - 1
    assert (made.int >> 80, rand_a << 62 | rand_b) == (unix_ms, random_bits)


@given(UNIX_MS, st.lists(RANDOM, unique=True, max_size=20))
def test_regression_35_ids_of_one_millisecond_do_not_collide(unix_ms: int, numbers: list[int]) -> None:
    made = [uuid7(unix_ms, number) for number in sorted(numbers)]
    assert len(set(made)) == len(numbers)
    # Counting the random bits up keeps ids of one millisecond in order, as numbers and as text.
    assert made == sorted(made)
    assert list(map(str, made)) == sorted(map(str, made))


@given(st.tuples(UNIX_MS, RANDOM), st.tuples(UNIX_MS, RANDOM))
def test_ids_sort_by_time(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (uuid7(*a) < uuid7(*b)) == (a < b)


@pytest.mark.parametrize(("unix_ms", "random_bits"), [(-1, 0), (2**48, 0), (0, -1), (0, 2**74)])
def test_uuid7_refuses_what_does_not_fit(unix_ms: int, random_bits: int) -> None:
    with pytest.raises(ValueError, match="must fit"):
        uuid7(unix_ms, random_bits)


@pytest.mark.parametrize("alias", ["a", "my-session", "2026.01:x_y", "A" * 128])
def test_aliases(alias: str) -> None:
    assert parse_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "A" * 129, "a b", "a/b", "é", "a\n", "\na", "a\0", "..%2f"])
def test_no_aliases(alias: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_alias(alias)
    assert caught.value.code is ErrorCode.INVALID


def test_timestamps_are_utc_with_milliseconds() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)
    assert format_timestamp(moment) == "2026-01-02T03:04:05.678Z"
    assert format_timestamp(moment.replace(microsecond=0)) == "2026-01-02T03:04:05.000Z"
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert format_timestamp(elsewhere) == "2026-01-02T03:04:05.678Z"


def test_a_time_without_a_zone_is_a_bug() -> None:
    with pytest.raises(ValueError, match="time zone"):
        format_timestamp(datetime(2026, 1, 2))  # noqa: DTZ001 - that is the point


@given(st.integers(-62_135_000_000, 253_402_200_000), st.integers(0, 999_999), st.timezones())
def test_timestamps_survive_a_round_trip(seconds: int, microseconds: int, zone: tzinfo) -> None:
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=microseconds)).astimezone(zone)
    read = parse_timestamp(format_timestamp(moment))
    assert timedelta(0) <= moment - read < timedelta(milliseconds=1)
    assert format_timestamp(read) == format_timestamp(moment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02t03:04:05.6z", "2026-01-02T03:04:05.600Z"),
        ("2026-01-02T03:04:05.678901234+01:00", "2026-01-02T02:04:05.678Z"),
    ],
)
def test_other_forms_of_rfc_3339_are_read(text: str, expected: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-13-02T03:04:05Z",
        "0001-01-01T00:00:00+23:00",
        "٢٠٢٦-01-02T03:04:05Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_timestamp(text)
    assert caught.value.code is ErrorCode.INVALID
