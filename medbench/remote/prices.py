"""What answers cost, by the tables of genai-prices; call by call, since some prices depend on the length of one call."""

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medbench.jobs import files
from medbench.remote.endpoint import Stopped, Usage, required
from medbench.remote.store import make_private

TRACKED = False  # what an answer costs is no part of it
ASKED_TOKENS = 1000  # of a question with its image: a picture is 700 to 1,100 tokens for the large services


class Price(NamedTuple):
    """Of a model, as `provider/model` of genai-prices. `batch`: asked by the batch API."""

    name: str
    batch: bool = False

    def of(self, usage: Usage) -> float:
        """Dollars of one call. Raises Stopped for a name without a price."""
        return _dollars(self.name, self.batch, usage)


@cache
def _dollars(name: str, batch: bool, usage: Usage) -> float:
    prices = required("genai_prices")
    provider, _, model = name.partition("/")
    counted = prices.Usage(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached)
    more = {"price_context": {"processing": "batch"}} if batch else {}
    try:
        return float(prices.calc_price(counted, model_ref=model, provider_id=provider, **more).total_price)
    except LookupError:
        remedy = "give `provider/model` as the package genai-prices has it, or leave `price` out"
        raise Stopped(f"price {name}", "is not known to genai-prices", remedy) from None


class Purse:
    """What a run has spent, in a file of the store that all its jobs add to."""

    def __init__(self, root: Path, run: str, price: Price | None, most: float | None) -> None:
        """`root`: of the store; `most`: dollars of the run."""
        self.price, self.most, self.run = price, most, run
        self._file, self._read, self.spent = root / ".spent" / run, 0, 0.0

    def require(self) -> None:
        """Raise Stopped where nothing more may be spent, or the price is unknown. What is in flight then is paid beyond it."""
        if self.price is None:
            return
        self.price.of(Usage())
        if self.most is None:
            return
        self._look()
        if self.spent >= self.most:
            found = f"has spent {self.spent:.2f} $ of its max_cost of {self.most:g} $"
            raise Stopped(f"run {self.run}", found, "raise max_cost and run again: what was answered is kept")

    def left(self) -> float:
        """Dollars that may be spent; infinite without a limit."""
        if self.price is None or self.most is None:
            return math.inf
        self._look()
        return self.most - self.spent

    def pay(self, usage: Usage) -> None:
        """Note an answer that was asked now."""
        if self.price is not None:
            self.note(self.price.of(usage))

    def note(self, dollars: float) -> None:
        """Add to what is spent; what is set aside for a batch is taken off again once its answers are paid."""
        make_private(self._file.parent)
        with files.written(self._file), open(self._file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(f"\n{dollars:.9f}\n".encode())  # what a full disk cut off stays a line of its own

    def _look(self) -> None:
        """Add what was noted since the last look."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                more = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._read += len(more[0]) + len(more[1])
        for line in more[0].split():
            with suppress(ValueError):
                self.spent += float(line)
