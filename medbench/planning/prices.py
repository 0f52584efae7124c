"""What endpoints will cost: their answers are paid for by the token."""

from collections.abc import Iterable
from typing import NamedTuple

from medbench import paths
from medbench.config import Config, needs
from medbench.remote.endpoint import Stopped, Usage
from medbench.remote.prices import ASKED_TOKENS, Price

TRACKED = False  # a look ahead is no part of a result


class Estimate(NamedTuple):
    """Of one model over cells that are not made yet: by rough counts of tokens, output at its most."""

    model: str
    questions: int
    dollars: float | None  # at most; None where no price is named, or genai-prices does not know it
    said: str


def estimates(config: Config, cells: Iterable[tuple[str, str, str]]) -> list[Estimate]:
    """Of each remote model. `cells`: data set, model, mode."""
    asked: dict[str, int] = {}
    for dataset, model, mode in cells:
        if config.models[model].endpoint is not None and not paths.predictions(dataset, model, mode).exists():
            asked[model] = asked.get(model, 0) + needs.test_rows(config, dataset)
    return [_of(config, model, n) for model, n in asked.items()]


def _of(config: Config, model: str, n: int) -> Estimate:
    entry, dollars = config.models[model], None
    budget = entry.max_new_tokens or config.asking.max_new_tokens
    said = f"{model}: about {n:,} questions, {n * ASKED_TOKENS:,} tokens in and at most {n * budget:,} out"
    if entry.endpoint is not None and entry.endpoint.price:
        try:
            dollars = n * Price(entry.endpoint.price, entry.endpoint.batch).of(Usage(ASKED_TOKENS, 0, budget, 0))
        except Stopped as error:
            said += f": {error}"
        else:
            said += f": at most {dollars:,.2f} $ by genai-prices; what is kept in {paths.store()} costs nothing"
    return Estimate(model, n, dollars, said)
