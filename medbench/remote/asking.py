"""Requests in, replies out as they come: what is kept is read, the rest is asked, several at a time, and kept as it comes."""

import asyncio
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from medbench.errors import Interrupted, MedbenchError
from medbench.remote.endpoint import Endpoint, Failed, Invalid, Limited, Reply, Usage
from medbench.remote.limits import Gate, Limits
from medbench.remote.prices import Price, Purse
from medbench.remote.request import Request
from medbench.remote.store import Store

TRACKED = False  # how an answer is got decides nothing of it
T = TypeVar("T")
Task: TypeAlias = "asyncio.Task[tuple[Reply, dict[str, object], tuple[Paid, ...]]]"
AHEAD = 8  # requests that are encoded while others are in flight
SHORTEST, LONGEST = 2.0, 60.0  # s: a pause for a service that does not say how long
FIRST = 5  # requests: when so many failed and none was answered, all will
_NAMED = 3  # failures that an error names


class Paid(NamedTuple):
    """An answer that was paid."""

    usage: Usage
    by_batch: bool = False  # for half the price
    sent: int = 1  # times that it was asked for, until it came


class Given(NamedTuple, Generic[T]):
    """A reply, and what it was asked for. `line`: as the store holds it; `is_new`: whether it was asked now."""

    tag: T
    reply: Reply
    line: dict[str, object]
    tries: tuple[Paid, ...]  # each answer to this request that was paid, the one used last
    key: str
    is_new: bool


def ask(requests: Iterable[tuple[T, Request]], endpoint: Endpoint, store: Store, limits: Limits) -> Iterator[Given[T]]:
    """Every request with its reply, in the order in which they come; equal requests are one. Memory holds what is in flight.

    Raises Stopped where no request will be answered, Interrupted for requests that failed after all others were answered, and for a
    service that wants a longer wait than `limits.max_wait`. What was answered is kept in each case.
    """
    asking = _Asking(endpoint, store, limits)
    with asyncio.Runner() as runner:
        try:
            yield from asking.given(requests, runner)
        except MedbenchError:
            runner.run(asking.finish())
            raise
        finally:
            runner.run(asking.close())
    asking.require_whole()


class _Asking:
    def __init__(self, endpoint: Endpoint, store: Store, limits: Limits) -> None:
        self.endpoint, self.store, self.limits = endpoint, store, limits
        self.gate = Gate(store.folder.parent, endpoint.where, limits)
        price = Price(limits.price) if limits.price else None
        self.purse = Purse(store.folder.parent, limits.run, price, limits.max_cost)
        self.tasks: dict[Task, Request] = {}
        self.sent = set[str]()  # keys of requests that are with the service, or whose answers come to the disk
        self.failed: list[tuple[str, Failed]] = []
        self.n_answered = 0
        self.limited_since: float | None = None
        self.is_over = False
        self.free = asyncio.Semaphore(limits.concurrency)

    def given(self, requests: Iterable[tuple[T, Request]], runner: asyncio.Runner) -> Iterator[Given[T]]:
        waiting: dict[str, list[T]] = {}  # key of a request in flight -> who wants its reply
        for tag, request in requests:
            if request.key in waiting:
                waiting[request.key].append(tag)
            elif (found := self.kept(request)) is not None:
                yield Given(tag, *found, request.key, False)
            else:
                waiting[request.key] = [tag]
                self.tasks[runner.get_loop().create_task(self.one(request))] = request
                while len(self.tasks) >= self.limits.concurrency + AHEAD:
                    yield from self.ended(waiting, runner)
        while self.tasks:
            yield from self.ended(waiting, runner)

    def kept(self, request: Request) -> tuple[Reply, dict[str, object], tuple[Paid, ...]] | None:
        """A final answer; or, after enough tries, the last of those that are not."""
        line, tried = self.store.final(request.key), self.store.tried(request.key)
        if line is None and not self.limits.retry and len(tried) >= self.limits.max_unanswered:
            line = tried.pop()
        if line is None or (reply := self.read(line)) is None:
            return None
        return reply, line, (*self.paid(tried), *self.paid([line]))

    def read(self, line: Mapping[str, Any]) -> Reply | None:
        """What the store holds; None for what is no answer by the code of now."""
        try:
            return self.endpoint.read(line["body"])
        except Failed:
            return None

    def paid(self, lines: Iterable[Mapping[str, Any]]) -> list[Paid]:
        """Answers that the store holds."""
        return [Paid(reply.usage, "batch" in line, line.get("sent", 1)) for line in lines if (reply := self.read(line)) is not None]

    def ended(self, waiting: dict[str, list[T]], runner: asyncio.Runner) -> Iterator[Given[T]]:
        """Wait for some of what is in flight. Raises what stops all."""
        for task in runner.run(_first(list(self.tasks))):
            request = self.tasks.pop(task)
            tags = waiting.pop(request.key)
            if task.cancelled():  # it waited when another found that all must stop
                continue
            try:
                reply, line, tries = task.result()
            except Failed as error:
                self.failed.append((request.name, error))
                self.require_hope()
                continue
            self.n_answered += 1
            for tag in tags:
                yield Given(tag, reply, line, tries, request.key, True)

    async def one(self, request: Request) -> tuple[Reply, dict[str, object], tuple[Paid, ...]]:
        """Ask until there is an answer that is final, or enough of those that are not. What stops all stops those that wait at once."""
        try:
            async with self.gate.alone(request.key):
                self.store.look()
                if (found := self.kept(request)) is not None:  # another process has asked meanwhile
                    return found
                return await self.asked(request, await asyncio.to_thread(self.endpoint.payload, request))
        except MedbenchError:
            self.is_over = True
            raise
        finally:
            self.sent.discard(request.key)

    async def asked(self, request: Request, payload: Any) -> tuple[Reply, dict[str, object], tuple[Paid, ...]]:
        n_failed, tries, seconds = 0, self.paid(self.store.tried(request.key)), self.endpoint.reached.timeout
        n_tried, n_sent = 0 if self.limits.retry else len(tries), 0
        while True:
            self.sent.discard(request.key)
            if self.is_over:
                raise asyncio.CancelledError
            try:
                async with self.free, self.gate.passed():
                    if self.is_over:
                        raise asyncio.CancelledError
                    self.purse.require()
                    n_sent += 1
                    self.sent.add(request.key)
                    async with asyncio.timeout(seconds):  # a client's own limit begins anew with each byte that comes
                        sent = await self.endpoint.send(request, payload)
                    self.purse.pay(self.endpoint.usage(sent.body))  # before another may be sent, and whether it is an answer or not
                    reply = self.endpoint.read(sent.body)
                    self.endpoint.require_model(reply, request.model)
            except Limited as error:
                self.wait(error)
                continue
            except Invalid:
                raise
            except (Failed, TimeoutError) as error:
                failed = error if isinstance(error, Failed) else Failed("no answer within the time limit")
                n_failed += 1
                if n_failed >= self.limits.max_tries or self.is_over:
                    raise failed from None
                self.sent.discard(request.key)
                await asyncio.sleep(max(_backoff(n_failed + (2 if failed.status in (503, 529) else 0)), min(failed.wait or 0.0, 60.0)))
                continue
            self.limited_since = None
            n_tried += not reply.is_final
            tries.append(Paid(reply.usage, sent=n_sent))
            line = {
                "model": reply.model, "request_id": sent.request_id, "name": request.name, "asked": request.words(), "sent": n_sent,
                "body": sent.body,
            }  # fmt: skip
            n_sent = 0
            await asyncio.to_thread(self.store.add, request.key, reply.is_final, **line)
            if reply.is_final or n_tried >= self.limits.max_unanswered:
                return reply, {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **line}, tuple(tries)

    def wait(self, error: Limited) -> None:
        """Pause all requests: as long as the service says, else as long as they were paused. Raises Interrupted where that takes too long.

        A service that says 0 s, or a time that has passed by this clock, does not say how long.
        """
        now = time.time()
        self.limited_since = self.limited_since or now
        seconds = error.wait or min(max(now - self.limited_since, SHORTEST), LONGEST)
        if now + seconds - self.limited_since > self.limits.max_wait:
            then = time.strftime("%Y-%m-%d %H:%M", time.localtime(now + min(seconds, 1e9)))
            found = f"takes no more requests for {seconds:,.0f} s ({error.found})"
            raise Interrupted(self.endpoint.where, found, f"run again after {then}: what was answered is kept")
        self.gate.pause(seconds)

    def require_hope(self) -> None:
        """Raise Interrupted where so many requests failed that the others would, too."""
        n = len(self.failed)
        if (not self.n_answered and n >= FIRST) or n > max(FIRST, self.limits.max_failures * (self.n_answered + n)):
            raise self.failure(f"{n} of {n + self.n_answered} requests failed, and the others are not asked")

    def require_whole(self) -> None:
        """Raise Interrupted for requests without an answer."""
        if self.failed:
            raise self.failure(f"{len(self.failed)} requests failed" if len(self.failed) > 1 else "1 request failed")

    def failure(self, found: str) -> MedbenchError:
        named = "; ".join(f"{name}: {error.found}" for name, error in self.failed[:_NAMED])
        return Interrupted(self.endpoint.where, f"{found}: {named}", "see to it, then run again: what was answered is kept")

    async def finish(self) -> None:
        """Let what was sent end, within its time limit: it is paid, so it is kept. What only waits ends at once."""
        self.is_over = True
        for task, request in self.tasks.items():
            if request.key not in self.sent:
                task.cancel()
        if self.sent:
            print(f"{self.endpoint.where}: stops once what was sent ({len(self.sent)}) is answered", file=sys.stderr, flush=True)
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def close(self) -> None:
        """End what is left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.endpoint.close()
        self.gate.close()


async def _first(tasks: list[Task]) -> list[Task]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return [task for task in tasks if task in done]


def _backoff(n_failed: int) -> float:
    """Seconds before another try: from half a second, doubled each time to a minute, a quarter of it by chance."""
    return min(2.0 ** (n_failed - 2), 60.0) * random.uniform(0.75, 1.0)
