from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode_command
from protocol.errors import ErrorCode, ParleyError
from protocol.values import (
    MAX_CONTAINERS,
    MAX_INTEGER,
    MIN_INTEGER,
    canonical,
    check_value,
    clean_text,
    fit_integers,
)
from tests.protocol.strategies import JSON


@given(st.text(st.characters()))
def test_cleaned_text_can_be_kept(text: str) -> None:
    cleaned = clean_text(text)
    check_value(cleaned, "$", 1)
    assert cleaned.encode().decode() == cleaned
    assert len(cleaned) == len(text)


@given(JSON)
def test_what_can_be_kept_passes_and_is_not_changed(value: object) -> None:
    check_value(value, "$", 64)
    assert fit_integers(value) == value
    assert canonical(value) == value


@given(JSON)
def test_canonical_is_stable(value: object) -> None:
    assert repr(canonical(canonical(value))) == repr(canonical(value))


@pytest.mark.parametrize(
    ("value", "form"), [(1.0, "1"), (-0.0, "0"), (1.5, "1.5"), (1e300, "1e+300"), (2.0**63, str(2**63)), (True, "True")]
)
def test_a_number_has_one_form(value: object, form: str) -> None:
    assert repr(canonical([{"a": value}])[0]["a"]) == form


def test_the_widest_integers_fit() -> None:
    check_value([MIN_INTEGER, MAX_INTEGER], "$", 1)
    assert fit_integers([MIN_INTEGER, MAX_INTEGER]) == [MIN_INTEGER, MAX_INTEGER]


@pytest.mark.parametrize("value", [1.5, "é", -7, None, True, "plain"])
def test_any_number_of_plain_values_may_stand_in_an_array(value: object) -> None:
    check_value([value] * (3 * MAX_CONTAINERS), "$", 1)


@pytest.mark.feature("T06")
@pytest.mark.parametrize("container", [[], {}, [[]], {"a": {}}])
def test_arrays_and_objects_have_a_bound_that_is_named(container: object) -> None:
    check_value([container] * (MAX_CONTAINERS // 2 - 1), "$", 3)
    with pytest.raises(ParleyError) as caught:
        check_value([container] * (MAX_CONTAINERS + 1), "$.result", 3)
    assert (caught.value.code, caught.value.path) == (ErrorCode.TOO_LARGE, "$.result")
    assert str(MAX_CONTAINERS) in caught.value.message


def test_bad_messagepack_of_any_number_of_pieces_is_refused_by_name() -> None:
    head = b"\x84\xa4type\xabtool_result\xa2id\xa1a\xa7call_id\xa1c\xa6result\xdd"
    count = 2 * MAX_CONTAINERS
    with pytest.raises(ParleyError) as caught:
        decode_command(head + count.to_bytes(4, "big") + b"\x91\xa1\xff" * count, "msgpack")
    assert (caught.value.code, caught.value.id) in {(ErrorCode.INVALID, "a"), (ErrorCode.TOO_LARGE, "a")}
