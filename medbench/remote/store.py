"""Answers that were paid for, by request key: lines of JSON in a folder of their own, which no rerun, edit or `clean` touches.

`store/<model>/<host>.<process>.<time>.jsonl`: every process appends to a file of its own and reads all of them, so no two can damage
each other's. A line is on the disk before its answer is used. A line that a kill or a full disk cut off is passed over. Only an index
is in memory. Files are readable by their owner alone: answers and questions may be about patients.
"""

import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medbench import paths
from medbench.jobs import files

TRACKED = False  # where an answer is kept decides nothing of it
_RESCAN = 1.0  # s: other processes' new answers are looked for no more often
_HEAD = re.compile(rb'\{"key": "([0-9a-f]{64})", "final": (true|false)')
_OWN = re.compile(r"(.*)\.(\d{1,9})\.\d+\.jsonl")  # what Store._open makes
_BITS = 40  # of an offset in its file, below the number of the file


class Store:
    """The answers of one model of one kind of endpoint."""

    def __init__(self, kind: str, model: str, root: Path | None = None) -> None:
        """Reads the index. Raises Interrupted for what the disk refuses."""
        self.kind, self.model = kind, model
        self.folder = (paths.store() if root is None else root) / folder_name(kind, model)
        self._lock = threading.Lock()
        self._final: dict[bytes, int] = {}  # key -> place
        self._tried: dict[bytes, list[int]] = {}  # key -> places of answers that are not final
        self._files: list[Path] = []
        self._ends: dict[str, tuple[int, int]] = {}  # file -> its number, and how far it was read
        self._own: Any = None
        self._scanned = 0.0
        self._scan()

    def __len__(self) -> int:
        """Requests with an answer that is final."""
        return len(self._final)

    def final(self, key: str) -> dict[str, Any] | None:
        """The line of a final answer; None where there is none, here or in another process so far."""
        found = self._final.get(bytes.fromhex(key))
        if found is None and time.monotonic() - self._scanned > _RESCAN:
            self._scan()
            found = self._final.get(bytes.fromhex(key))
        return None if found is None else self._line(found)

    def look(self) -> None:
        """Take in what other processes have kept by now."""
        self._scan()

    def tried(self, key: str) -> list[dict[str, Any]]:
        """Lines of answers that were empty or filtered, the oldest first."""
        found = [line for place in self._tried.get(bytes.fromhex(key), ()) if (line := self._line(place)) is not None]
        return sorted(found, key=lambda line: str(line.get("time")))

    def add(self, key: str, final: bool, **fields: Any) -> None:
        """Keep an answer: on the disk when this returns. Raises Interrupted for what the disk refuses; what was kept before stays."""
        head = {"key": key, "final": final, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        line = encoded({**head, "kind": self.kind, "asked_model": self.model, **fields})
        with self._lock, files.written(self.folder, "answers that are kept are not asked again"):
            if self._own is None:
                self._own = self._open()
            number, end = self._ends[self._own.name]
            try:
                if (written := self._own.write(line)) < len(line):  # a disk that is nearly full; the next write says why
                    self._own.write(line[written:])
                os.fsync(self._own.fileno())
            except OSError:
                os.ftruncate(self._own.fileno(), end)
                raise
            self._ends[self._own.name] = number, end + len(line)
            self._note(bytes.fromhex(key), final, number << _BITS | end)

    def close(self) -> None:
        """The own file is closed."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> Any:
        """A new file of this process."""
        make_private(self.folder)
        path = self.folder / f"{socket.gethostname()}.{os.getpid()}.{time.time_ns()}.jsonl"
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        self._ends[str(path)] = (len(self._files), 0)
        self._files.append(path)
        return open(str(path), "ab", buffering=0, opener=lambda *_: handle)

    def _scan(self) -> None:
        """What was appended since the last look."""
        with self._lock:
            self._scanned = time.monotonic()
            try:
                found = sorted((entry.path, entry.stat().st_size) for entry in os.scandir(self.folder) if entry.name.endswith(".jsonl"))
            except FileNotFoundError:
                return
            for name, size in found:
                if name not in self._ends:
                    self._ends[name] = (len(self._files), 0)
                    self._files.append(Path(name))
                number, end = self._ends[name]
                if size > end:
                    self._ends[name] = (number, self._read(name, number, end))

    def _read(self, name: str, number: int, start: int) -> int:
        """Note the whole lines of a file from some place on; where they end."""
        try:
            with open(name, "rb") as stream:
                stream.seek(start)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    if (head := _HEAD.match(line)) and line.endswith(b"}\n"):
                        self._note(bytes.fromhex(head[1].decode()), head[2] == b"true", number << _BITS | start)
                    start += len(line)
        except PermissionError:
            print(f"{name}: not readable by this user: its answers are asked again", file=sys.stderr, flush=True)
            return sys.maxsize
        return start

    def _note(self, key: bytes, final: bool, place: int) -> None:
        if final:
            self._final[key] = place
        else:
            self._tried.setdefault(key, []).append(place)

    def _line(self, place: int) -> dict[str, Any] | None:
        """A line by its place; None for one that is damaged, or whose file is gone."""
        try:
            with self._files[place >> _BITS].open("rb") as stream:
                stream.seek(place & ((1 << _BITS) - 1))
                line = json.loads(stream.readline().decode("utf-8", "surrogatepass"))
        except (OSError, ValueError):
            return None
        return line if isinstance(line, dict) and isinstance(line.get("body"), dict) else None


def size(kind: str, model: str) -> int:
    """Bytes of the answers of a model that are kept."""
    return sum(file.stat().st_size for file in (paths.store() / folder_name(kind, model)).glob("*.jsonl"))


def make_private(folder: Path) -> None:
    """A folder in a store, and the store, for their owner alone; one that is there keeps its permissions: it may be shared on purpose."""
    files.make_folder(folder.parents[1])
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, exist_ok=True)


def folder_name(kind: str, model: str) -> str:
    """Of the answers of a model, whose own name may be a path: readable, and its own."""
    readable = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[-60:]
    return f"{kind}-{readable}-{hashlib.sha256(f'{kind} {model}'.encode()).hexdigest()[:8]}"


def encoded(line: dict[str, Any]) -> bytes:
    """As it stands in a file: `key` and `final` come first, by which the index is read."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def is_written(file: Path) -> bool:
    """Whether the process that writes a file may live: on another host nobody can tell. A file of another name was put there."""
    if not (named := _OWN.fullmatch(file.name)):
        return False
    return named[1] != socket.gethostname() or files.lives(int(named[2]))


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of one file of a store."""
    with file.open("rb") as stream:
        for line in stream:
            try:
                found = json.loads(line.decode("utf-8", "surrogatepass"))
            except ValueError:
                continue
            if isinstance(found, dict) and "key" in found:
                yield found
