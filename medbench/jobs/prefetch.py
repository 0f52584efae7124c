"""Preparing the next batches in a worker thread while the device computes. Standard library only."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 2
"""Batches that are ready or in work: bounds the memory whatever the number of batches."""

A = TypeVar("A")
B = TypeVar("B")


def prefetch(prepare: Callable[[A], B], items: Iterable[A], beside: bool = True) -> Iterator[tuple[A, B]]:
    """Every item with what `prepare` makes of it, in order; an error of `prepare` or `items` is raised here.

    `beside`: in a thread, while a device computes. Without one the same cores do both, and a second team of torch's threads on them
    slows the model down by a tenth or two: then items are prepared when they are needed.
    """
    if not beside:
        yield from ((item, prepare(item)) for item in items)
        return
    source = iter(items)
    with ThreadPoolExecutor(1) as worker:
        waiting: deque[tuple[A, Future[B]]] = deque()
        while True:
            waiting.extend((item, worker.submit(prepare, item)) for item in islice(source, AHEAD - len(waiting)))
            if not waiting:
                return
            item, prepared = waiting.popleft()
            yield item, prepared.result()
