"""Progress of a long loop: a bar with rate and time left on a terminal, else a few plain lines, so that a log stays short."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

TRACKED = False  # how progress looks decides no result

LINE_SECONDS = 10.0
"""Plain lines of a process come at most this often..."""
LINES = 20
"""...and at most about this many times a loop: a failed job's log is shown whole."""

_said: list[float] = []  # when this process wrote its last line, or began its first loop: short loops, one after another, say something too

A = TypeVar("A")


def track(items: Iterable[A], what: str, total: int, done: int = 0, size: Callable[[A], int] = lambda item: 1) -> Iterator[A]:
    """Every item, its progress shown on stderr: `total` units, `done` of them in an earlier start, `size(item)` units an item."""
    return (_bar if sys.stderr.isatty() else _lines)(items, what, total, done, size)


def _bar(items: Iterable[A], what: str, total: int, done: int, size: Callable[[A], int]) -> Iterator[A]:
    from rich.console import Console  # here, since every start of Snakemake imports this module
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Any:
            return f"{task.speed:.1f}/s" if task.speed else ""

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            progress.update(task, advance=size(item))


def _lines(items: Iterable[A], what: str, total: int, done: int, size: Callable[[A], int]) -> Iterator[A]:
    if done:
        print(f"{what}: going on after {done} of {total}", file=sys.stderr)
    begun = time.monotonic()
    said = min(begun, *_said) if _said else begun
    _said[:] = [said]
    count = 0
    for item in items:
        yield item
        count += size(item)
        now = time.monotonic()
        rate = count / max(now - begun, 1e-9)
        left = (total - done - count) / max(rate, 1e-9)
        if now - said >= max(LINE_SECONDS, (now - begun + left) / LINES):
            said = now
            _said[:] = [now]
            print(line(what, done + count, total, rate, left), file=sys.stderr, flush=True)


def line(what: str, done: int, total: int, rate: float, left: float) -> str:
    """`left` in seconds."""
    time_left = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f"{what}: {done} of {total} ({100 * done / max(total, 1):.0f}%), {rate:.3g}/s, {time_left} left"
