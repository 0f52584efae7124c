"""Seconds of each epoch of a training, measured from inside the stage `adapt`: without loading and certifying."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from medbench.adapt.training import Training


@contextmanager
def timed_epochs() -> Iterator[list[float]]:
    """A list that grows by one entry for every epoch that is trained meanwhile."""
    whole, timed = Training.run_epoch, list[float]()

    def epoch(self: Training, number: int) -> float:
        begun = time.monotonic()
        loss = whole(self, number)
        timed.append(time.monotonic() - begun)
        return loss

    Training.run_epoch = epoch  # type: ignore[method-assign]
    try:
        yield timed
    finally:
        Training.run_epoch = whole  # type: ignore[method-assign]
