"""What tokens cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from server.turns.pricing import Prices
from server.turns.settings import PriceSettings

PRICES = Prices(
    {
        "gpt-4.1": PriceSettings(prompt=2, completion=8, currency="EUR"),
        "tenth": PriceSettings(prompt=0.1, completion=0.3, currency="EUR"),
        "free": PriceSettings(prompt=0, completion=0, currency="EUR"),
    }
)


@pytest.mark.feature("A07")
@pytest.mark.parametrize(
    ("model", "prompt", "completion", "cost"),
    [
        ("gpt-4.1", 1_000_000, 0, "2"),
        ("gpt-4.1", 1_000, 500, "0.006"),
        ("gpt-4.1", 0, 0, "0"),
        ("tenth", 1, 0, "0.0000001"),
        ("tenth", 3, 1, "0.0000006"),
        ("free", 10**9, 10**9, "0"),
    ],
)
def test_a_price_is_for_a_million_tokens_and_exact(model: str, prompt: int, completion: int, cost: str) -> None:
    assert PRICES.cost(model, prompt, completion) == Decimal(cost)


@pytest.mark.parametrize("model", ["gpt-4.1-mini", "gpt-4", "", None])
def test_of_a_model_without_a_price_the_cost_is_not_known(model: str | None) -> None:
    assert PRICES.cost(model, 1, 1) is None


def test_all_prices_are_in_one_currency() -> None:
    assert PRICES.currency == "EUR"
    assert Prices({}).currency is None
