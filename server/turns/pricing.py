"""What tokens cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from server.turns.settings import PriceSettings

__all__ = ["Prices"]

_MILLION: Final = Decimal(1_000_000)


class Prices:
    """The prices of models, by name; exact, as costs are added up over months."""

    def __init__(self, settings: Mapping[str, PriceSettings]) -> None:
        # By their shortest text, so that 0.1 is a tenth and not the binary fraction beside it.
        self._prices = {
            model: (Decimal(str(price.prompt)) / _MILLION, Decimal(str(price.completion)) / _MILLION)
            for model, price in settings.items()
        }
        self.currency = next((price.currency for price in settings.values()), None)

    def cost(self, model: str | None, prompt: int, completion: int) -> Decimal | None:
        """What so many tokens cost, in ``currency``; None where the model's price is not known."""
        price = None if model is None else self._prices.get(model)
        if price is None:
            return None
        return price[0] * prompt + price[1] * completion
