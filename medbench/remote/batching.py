"""Batches: requests that a service answers within a day, in any order, for half the price.

`fill` has the store hold answers; whoever asks then reads them there, and asks directly for what a batch left open. Every batch has a note
in the store, `store/<model>/batches/<mark>.jsonl`: its requests, then its id once the service has it. It is written before anything is
sent and goes when all answers are kept, so that a batch is never submitted twice, whatever is killed when. The mark stands in the batch's
metadata, too: by it a batch is found whose id was not noted any more.
"""

import json
import os
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from filelock import FileLock

from medbench.errors import Interrupted, MedbenchError
from medbench.jobs import files
from medbench.remote.endpoint import Endpoint, Failed, Invalid, Limited, Stopped, Usage
from medbench.remote.limits import Limits
from medbench.remote.prices import ASKED_TOKENS, Price, Purse
from medbench.remote.request import Request
from medbench.remote.store import Store, encoded, make_private

TRACKED = False  # how an answer is got decides nothing of it
T = TypeVar("T")
FIRST_LOOK, LONGEST_LOOK = 1.0, 60.0  # s between two looks at a batch
_BUDGETS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class State(NamedTuple):
    """Of a batch. `word`: in_progress | completed | failed (nothing of it was done) | expired | cancelled (what was done is kept)."""

    word: str
    said: str = ""  # why it failed
    results: tuple[str, ...] = ()  # where they lie


class Result(NamedTuple):
    """Of one request; `body` is None where it got no answer."""

    key: str
    body: dict[str, Any] | None
    request_id: str = ""


class Gone(Exception):
    """The service knows a batch no more, or has removed the file of its answers."""


class Batches(ABC):
    """A service that takes batches. Every method raises Failed, Limited, Invalid or Stopped."""

    most_requests: int
    most_bytes: int

    @abstractmethod
    def line(self, request: Request) -> bytes:
        """A request as it stands in a file of them."""

    @abstractmethod
    def submit(self, lines: IO[bytes], mark: str) -> str:
        """The id of the batch."""

    @abstractmethod
    def find(self, mark: str, since: float) -> str | None:
        """The id of a batch that was submitted with this mark after `since` [s since 1970]."""

    @abstractmethod
    def state(self, id: str) -> State:
        """How far it is. Raises Gone."""

    @abstractmethod
    def results(self, state: State, folder: Path) -> Iterator[Result]:
        """Of a batch that is over; `folder`: whose disk they may pass through. Raises Gone."""

    @abstractmethod
    def close(self) -> None:
        """Connections end."""


class Note(NamedTuple):
    """What is known of a batch that is not over."""

    path: Path
    places: dict[str, int]  # key -> where its request stands in the file
    id: str | None  # None: nobody knows whether it was submitted
    reserved: float  # dollars of `run`
    run: str

    def request(self, key: str) -> dict[str, Any]:
        """`name` and `asked`, as the store keeps them beside an answer."""
        with self.path.open("rb") as stream:
            stream.seek(self.places[key])
            found: dict[str, Any] = json.loads(stream.readline().decode("utf-8", "surrogatepass"))
        return found


def read(path: Path) -> Note:
    """A note; a line that a kill cut off is passed over."""
    places, found, start = dict[str, int](), dict[str, Any](), 0
    with path.open("rb") as stream:
        for data in stream:
            try:
                line = json.loads(data.decode("utf-8", "surrogatepass"))
            except ValueError:
                line = {}
            if "key" in line:
                places[line["key"]] = start
            else:
                found |= line
            start += len(data)
    return Note(path, places, found.get("id"), float(found.get("reserved", 0.0)), str(found.get("run", "")))


def fill(requests: Callable[[], Iterable[Request]], endpoint: Endpoint, store: Store, limits: Limits) -> None:
    """Have batches answer what the store does not hold; `requests` makes all of them, once each round.

    Memory holds keys alone. What a finished batch left without an answer is left to be asked directly. Raises Stopped for a batch that the
    service refused, Interrupted for one that takes longer than `limits.batch_wait`: a later run finds it again.
    """
    filling = _Filling(endpoint, store, limits)
    try:
        filling.run(requests)
    finally:
        filling.close()


class _Filling:
    def __init__(self, endpoint: Endpoint, store: Store, limits: Limits) -> None:
        self.endpoint, self.store, self.limits = endpoint, store, limits
        self.folder = store.folder / "batches"
        self.price = Price(limits.price, batch=True) if limits.price else None
        self.direct = set[str]()  # keys that a finished batch left without an answer
        self.troubles: list[MedbenchError] = []

    @cached_property
    def service(self) -> Batches:
        """Needed only where something is asked."""
        found: Batches = self.endpoint.batches(self.store.model)
        return found

    def purse(self, run: str) -> Purse:
        return Purse(self.store.folder.parent, run, self.price, self.limits.max_cost)

    def run(self, requests: Callable[[], Iterable[Request]]) -> None:
        began = time.monotonic()
        while True:
            with self.alone():
                notes = self.awaited(requests())
            if not notes:
                return
            self.troubles.clear()
            if not self.wait(notes, began) and self.troubles:
                raise self.troubles[0]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process of this store plans or reads batches of this model meanwhile."""
        make_private(self.store.folder)
        with files.written(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            with FileLock(self.folder / "lock", mode=0o600, poll_interval=0.2):
                self.store.look()
                yield

    # --- submitting ---

    def awaited(self, requests: Iterable[Request]) -> list[Note]:
        """Batches that hold what is wanted: those submitted before, and new ones for the rest."""
        held = {key: note for note in self.notes() for key in note.places}
        found, seen, draft = dict[Path, Note](), set(self.direct), None
        left = self.purse(self.limits.run).left()
        try:
            for request in requests:
                if request.key in seen or not self.is_wanted(request.key):
                    continue
                seen.add(request.key)
                if (note := held.get(request.key)) is not None:
                    found[note.path] = note
                    continue
                line = self.service.line(request)
                dollars = self.at_most(request)
                if draft is not None and not draft.takes(line, dollars, left):
                    whole, draft = draft, None
                    note = self.submit(whole)
                    found[note.path] = note
                draft = draft or _Draft(self.folder, self.service)
                draft.add(request, line, dollars)
            if draft is not None:
                whole, draft = draft, None  # whatever ends it from now on, its note stays: the service may have the batch
                note = self.submit(whole)
                found[note.path] = note
        except Stopped:
            if not found:  # what is under way is read first: it may leave more money than was set aside
                raise
        finally:
            if draft is not None:  # nothing of it was sent
                draft.discard()
        return list(found.values())

    def at_most(self, request: Request) -> float:
        """Dollars of a request that uses all of its budget."""
        if self.price is None:
            return 0.0
        budget = next((request.parameters[name] for name in _BUDGETS if name in request.parameters), 0)
        return self.price.of(Usage(ASKED_TOKENS, 0, budget))

    def is_wanted(self, key: str) -> bool:
        """An empty or filtered answer is asked for again directly."""
        return self.store.final(key) is None and (self.limits.retry or not self.store.tried(key))

    def notes(self) -> list[Note]:
        """Of all batches of this model. One without an id is looked for by its mark; where it was not submitted, its note goes."""
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            note = read(path)
            if note.id is None:
                id = self.patiently(lambda path=path: self.service.find(path.stem, path.stat().st_mtime - 3600))  # type: ignore[misc]
                if id is None:
                    self.forget(note)
                    continue
                _append(path, {"id": id})
                note = note._replace(id=id)
            found.append(note)
        return found

    def submit(self, draft: "_Draft") -> Note:
        """Its note is on the disk first. Raises Stopped where the run's money may not last for all of it."""
        purse = self.purse(self.limits.run)
        try:
            purse.require()
            if purse.most is not None and purse.spent + draft.dollars > purse.most:
                found = f"has spent or set aside {purse.spent:.2f} $, and a batch of {draft.n:,} requests may cost {draft.dollars:.2f} $"
                remedy = "raise it, or ask directly (`batch: false`)"
                raise Stopped(f"run {purse.run}", f"{found}: more than its max_cost of {purse.most:g} $", remedy)
        except MedbenchError:
            draft.discard()
            raise
        reserved = draft.dollars if purse.most is not None else 0.0
        if reserved:
            purse.note(reserved)
        draft.close({"kind": self.store.kind, "model": self.store.model, "reserved": reserved, "run": purse.run, "time": time.time()})
        try:
            id = self.submitted(draft)
        except Failed as error:  # perhaps it was taken all the same: the next run looks for it
            found = f"could not submit a batch: {error.found}"
            raise Interrupted(self.endpoint.where, found, "run again: a batch that was taken is found by its mark") from None
        except Stopped:
            self.forget(read(draft.path))
            raise
        _append(draft.path, {"id": id})
        self.say(f"batch {id}: {draft.n:,} requests submitted")
        return read(draft.path)

    def submitted(self, draft: "_Draft") -> str:
        """Before another try a look whether the last one was taken."""
        for n_failed in range(1, self.limits.max_tries + 1):
            try:
                draft.lines.seek(0)
                return self.service.submit(draft.lines, draft.path.stem)
            except Invalid as error:
                raise Stopped(self.endpoint.where, f"takes no batch: {error.found}", "ask directly: `batch: false`") from None
            except Failed as error:
                if n_failed == self.limits.max_tries:
                    raise
                self.pause(error, n_failed)
                if id := self.patiently(lambda: self.service.find(draft.path.stem, draft.began - 3600)):
                    return id
        raise AssertionError

    def forget(self, note: Note) -> None:
        """Its requests are open again."""
        if note.reserved:
            self.purse(note.run).note(-note.reserved)
        note.path.unlink(missing_ok=True)

    # --- waiting ---

    def wait(self, notes: list[Note], began: float) -> bool:
        """Until all are over and read. Whether there was any answer. Raises Interrupted where it takes too long."""
        seconds, is_better = FIRST_LOOK, False
        while True:
            words = []
            for note in tuple(notes):
                word, n_answered = self.looked_at(note)
                if word is None:
                    notes.remove(note)
                    is_better |= n_answered > 0
                else:
                    words.append(f"batch {note.id} ({len(note.places):,} requests) is {word}")
            if not notes:
                return is_better
            left = began + self.limits.batch_wait - time.monotonic()
            if left <= 0:
                found = f"{'; '.join(words[:3])} after {self.limits.batch_wait:,.0f} s"
                raise Interrupted(self.endpoint.where, found, "run again later: it goes on, and is not submitted again")
            time.sleep(min(seconds, left))
            seconds = min(seconds * 1.5, LONGEST_LOOK)

    def looked_at(self, note: Note) -> tuple[str | None, int]:
        """The service's word for a batch that is not over, else None and how many answers there were."""
        assert note.id is not None
        id = note.id
        if not note.path.exists():  # another process has read it
            self.store.look()
            return None, 1
        with self.known(note):
            state = self.patiently(lambda: self.service.state(id))
        if state.word not in ("completed", "failed", "expired", "cancelled"):
            return state.word, 0
        with self.alone():
            if not note.path.exists():
                return None, 1
            with self.known(note):
                answered = self.kept(note, state)
            self.forget(note)
        self.say(f"batch {note.id}: {state.word}, {len(answered):,} of {len(note.places):,} requests answered")
        if state.word == "completed":
            self.direct |= note.places.keys() - answered
            return None, 1
        found = f"batch {note.id} {state.word}" if state.word in ("failed", "expired") else f"batch {note.id} was {state.word}"
        remedy = {"failed": "see to it, or wait for other batches of the account, then run again: nothing of it was paid"}
        again = f"run again: {len(answered):,} answers are kept, and the others go into another batch"
        found += f": {state.said}" if state.said else ""
        self.troubles.append(Interrupted(self.endpoint.where, found, remedy.get(state.word, again)))
        if state.word == "cancelled":  # somebody did not want it
            raise self.troubles[-1]
        return None, len(answered)

    @contextmanager
    def known(self, note: Note) -> Iterator[None]:
        """Raises Stopped, which names the note, for a batch whose answers cannot be had: only a person may have them paid again."""
        try:
            yield
        except Gone as error:
            remedy = f"use a key of the account that submitted it; where its answers are gone, remove {note.path}, and they are paid again"
            raise Stopped(self.endpoint.where, f"batch {note.id}: {error}", remedy) from None

    def kept(self, note: Note, state: State) -> set[str]:
        """Put the answers of a batch into the store as they are read; their keys. Raises Stopped where another model answered."""
        answered, purse = set[str](), self.purse(self.limits.run)
        for result in self.patiently(lambda: self.service.results(state, self.folder)):
            if result.key not in note.places or result.body is None:
                continue
            try:
                reply = self.endpoint.read(result.body)
            except Failed:
                continue
            self.endpoint.require_model(reply, self.store.model)
            answered.add(result.key)
            if self.store.final(result.key) is not None or any(line.get("batch") == note.id for line in self.store.tried(result.key)):
                continue  # a run that was killed had read so far
            purse.pay(reply.usage)
            about = note.request(result.key)
            self.store.add(
                result.key, reply.is_final, model=reply.model, request_id=result.request_id, name=about["name"], asked=about["asked"],
                sent=1, body=result.body, batch=note.id,
            )  # fmt: skip
        return answered

    # --- patience ---

    def patiently(self, call: Callable[[], T]) -> T:
        """What may be asked any number of times. Raises Interrupted where it failed too often."""
        for n_failed in range(1, self.limits.max_tries + 1):
            try:
                return call()
            except Failed as error:
                if isinstance(error, Invalid) or n_failed == self.limits.max_tries:
                    remedy = "see to it, then run again: a batch that was submitted goes on, and is not submitted again"
                    raise Interrupted(self.endpoint.where, f"no word of its batches: {error.found}", remedy) from None
                self.pause(error, n_failed)
        raise AssertionError

    def pause(self, error: Failed, n_failed: int) -> None:
        """Before another try. Raises Interrupted for a service that wants a longer one than `max_wait`."""
        seconds = error.wait if error.wait is not None else min(2.0 ** (n_failed + (2 if isinstance(error, Limited) else -2)), 60.0)
        if seconds > self.limits.max_wait:
            found = f"takes no more requests for {seconds:,.0f} s ({error.found})"
            raise Interrupted(self.endpoint.where, found, "run again later: what was answered is kept")
        time.sleep(seconds)

    def say(self, text: str) -> None:
        print(f"{self.endpoint.where}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if "service" in self.__dict__:
            self.service.close()


class _Draft:
    """A batch before it is submitted: a note, and a file without a name of what is sent, both on the store's disk."""

    def __init__(self, folder: Path, service: Batches) -> None:
        self.service, self.path, self.began = service, folder / f"{uuid.uuid4().hex}.jsonl", time.time()
        self.note = os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        self.lines = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.n, self.size, self.dollars = 0, 0, 0.0

    def takes(self, line: bytes, dollars: float, left: float) -> bool:
        fits = self.n < self.service.most_requests and self.size + len(line) <= self.service.most_bytes
        return fits and self.dollars + dollars <= left

    def add(self, request: Request, line: bytes, dollars: float) -> None:
        self.note.write(encoded({"key": request.key, "name": request.name, "asked": request.words()}))
        self.lines.write(line)
        self.n, self.size, self.dollars = self.n + 1, self.size + len(line), self.dollars + dollars

    def close(self, about: dict[str, Any]) -> None:
        """The note is on the disk."""
        self.note.write(encoded(about))
        self.note.flush()
        os.fsync(self.note.fileno())
        self.note.close()
        self.lines.flush()

    def discard(self) -> None:
        self.note.close()
        self.lines.close()
        self.path.unlink(missing_ok=True)


def _append(path: Path, line: dict[str, Any]) -> None:
    with files.written(path), path.open("ab") as stream:
        stream.write(b"\n" + encoded(line))  # what a kill cut off stays a line of its own
        stream.flush()
        os.fsync(stream.fileno())
