from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.values import MAX_INTEGER, MIN_INTEGER, canonical, check_value, clean_text, fit_integers
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
