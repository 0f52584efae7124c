"""Student's t, by the standard library: importing scipy takes as long as all other work of a small interval job."""

import math
from functools import cache
from statistics import NormalDist

DECIMALS = 8  # the last bits of lgamma and exp are the machine's own
_TINY, _DIGITS = 1e-300, 1e-15


@cache  # the rows of a data set ask for a few, again and again; so below
def cdf(t: float, freedom: float) -> float:
    """Probability below `t` with `freedom` > 0 degrees of freedom, of any size: half the regularised incomplete beta in the lower tail."""
    return round(_cdf(t, freedom), DECIMALS)


def _cdf(t: float, freedom: float) -> float:
    tail = 0.5 * _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    return tail if t < 0 else 1 - tail


@cache
def quantile(p: float, freedom: float) -> float:
    """`t` with probability `p` below it, 0 < p < 1, by bisection between bounds found from the normal quantile."""
    if p > 0.5:
        return -quantile(1 - p, freedom)
    low, high = min(NormalDist().inv_cdf(p), -1.0), 0.0
    while _cdf(low, freedom) > p:
        low *= 2
    while high - low > _DIGITS * (1 - low):
        middle = (low + high) / 2
        low, high = (low, middle) if _cdf(middle, freedom) > p else (middle, high)
    return round((low + high) / 2, DECIMALS)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised, by Lentz's continued fraction (Press et al., Numerical Recipes, section 6.4)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    d = 1 / _away(1 - (a + b) * x / (a + 1))
    fraction, c = d, 1.0
    for m in range(1, 10_000):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 / _away(1 + step * d)
            c = _away(1 + step / c)
            fraction *= c * d
        if abs(c * d - 1) < _DIGITS:
            break
    return front * fraction


def _away(value: float) -> float:
    """Not 0: what is divided by it stays finite."""
    return value if abs(value) > _TINY else _TINY
