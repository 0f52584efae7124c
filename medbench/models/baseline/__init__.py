"""Baselines: what is reached without a model, or without an image."""

NEVER = -99.0
"""Log-probability of what a baseline never answers."""


def chosen(n: int, place: int) -> list[float]:
    """Log-probabilities of `n` options of which one is always taken."""
    return [0.0 if option == place else NEVER for option in range(n)]
