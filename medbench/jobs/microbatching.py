"""How many samples the device takes at once: a whole batch until it runs out of memory, then half as many, and half again.

A batch stays what it is (a function of the data and the batch size); only the pieces in which it goes through the model shrink.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from medbench.errors import Interrupted

TRACKED = False  # in what pieces a batch goes through a device decides no result

A = TypeVar("A")
B = TypeVar("B")


class Microbatching:
    """Runs batches in parts that fit. `record` is told every size that is found."""

    def __init__(self, size: int | None = None, record: Callable[[int], None] = lambda size: None) -> None:
        self.size, self._record = size, record  # None: whole batches fitted so far

    def parts(self, items: Sequence[A]) -> list[Sequence[A]]:
        """A batch cut into pieces that fitted last."""
        size = self.size or len(items)
        return [items[start : start + size] for start in range(0, len(items), size)] if len(items) else []

    def run(self, items: Any, compute: Callable[[Any], B]) -> list[B]:
        """What `compute` makes of the parts of a batch (a sequence or an array), in order; a part that does not fit is halved."""
        done: list[B] = []
        start = 0
        while start < len(items):
            part = items[start : start + (self.size or len(items))]
            try:
                done.append(compute(part))
            except Exception as error:
                self.halve(error, len(part))
            else:
                start += len(part)
        return done

    def halve(self, error: Exception, tried: int) -> None:
        """Go on with half of `tried` samples after an out-of-memory error; any other error is raised again.

        Raises Interrupted when a single sample does not fit.
        """
        where = exhausted(error)
        if where is None:
            raise error
        if tried <= 1:
            found = "its memory does not hold the model with a single sample"
            remedy = "end what else uses it, take a larger one, or shrink the images (`max_side` of the data set)"
            raise Interrupted(where, found, remedy) from None
        self.size = tried // 2
        print(f"{tried} samples at once do not fit the memory of {where}; going on with {self.size}", file=sys.stderr)
        self._record(self.size)


def exhausted(error: Exception) -> str | None:
    """Whose memory is full, by an error of torch; None for any other error."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return "the GPU"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):  # torch on a CPU
        return "this machine"
    return None


class Prepared(Generic[B]):
    """What `prepare` makes of the parts of a batch, made beforehand; of parts that became smaller since, on demand."""

    def __init__(self, microbatching: Microbatching, places: Sequence[int], prepare: Callable[[Sequence[int]], B]) -> None:
        self.places, self._prepare = places, prepare
        self._made = {tuple(part): prepare(part) for part in microbatching.parts(places)}

    def __call__(self, part: Sequence[int]) -> B:
        made = self._made.get(tuple(part))
        return self._prepare(part) if made is None else made
