"""Measures of a book's risk: scenarios, losses, value at risk and expected shortfall; pure functions on arrays."""

from risk.measures.losses import book_losses
from risk.measures.scenarios import DECAY, WARM_UP, Scenarios, filtered_scenarios
from risk.measures.tail import expected_shortfall, value_at_risk

__all__ = [
    "DECAY",
    "WARM_UP",
    "Scenarios",
    "book_losses",
    "expected_shortfall",
    "filtered_scenarios",
    "value_at_risk",
]
