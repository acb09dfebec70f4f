"""Simulators of the reward family, under the common name of all data."""

from causalfair.reward._simulate import (
    make_bandit_texts,
    make_headlines,
    make_weekday_answers,
)
from causalfair.reward._simulate_numbers import (
    make_linear_reward,
    make_popularity_iv,
    make_preferences,
    make_proximal_reward,
    make_simpson_reward,
    make_text_rates,
    make_two_sources,
)

__all__ = [
    "make_bandit_texts",
    "make_headlines",
    "make_linear_reward",
    "make_popularity_iv",
    "make_preferences",
    "make_proximal_reward",
    "make_simpson_reward",
    "make_text_rates",
    "make_two_sources",
    "make_weekday_answers",
]
