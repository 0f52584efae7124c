"""How fast `prepare` is beside a bare decode loop, what it keeps in memory, and how long the search for near duplicates takes.

`python -m benchmarks.prepare`. Ratios of one run, on all cores:
- images a second of `prepare` (byte digests, pixel digests, perceptual hashes, tables) against a loop that reads and decodes the same
  JPEG files of 320x390 pixels in as many threads: alternating, by the clock and by seconds of a core. Memory is cleared as rarely as
  `python -m medbench` does it, and what a round wrote is removed before the clock of the next: a user prepares once;
- one image alone: such a file, and one of 1024x1024 pixels of greys stored in colour, as many radiographs are;
- peak memory of a table of CheXpert's size (223,414 rows; the files repeat), a process of its own;
- near duplicates among 100,000 hashes on one core: unrelated ones, ones in clusters, and ones that share most of their bits.
"""

import argparse
import csv
import gc
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from medbench.datasets import ingest
from medbench.datasets.near import close_pairs
from medbench.stages import prepare

ROWS, SIZE = 223_414, (320, 390)


def write_images(folder: Path, n: int) -> list[str]:
    """JPEG files like small chest radiographs: smooth, with noise."""
    (folder / "images").mkdir(parents=True)
    names = []
    for number in range(n):
        rng = np.random.default_rng(number)
        smooth = Image.fromarray(rng.integers(40, 215, (10, 8), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        noise = rng.normal(0, 6, (SIZE[1], SIZE[0]))
        name = f"images/{number:06d}.jpg"
        pixels = np.clip(np.asarray(smooth, dtype=float) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=90)
        names.append(name)
    return names


def write_labels(folder: Path, names: list[str], rows: int) -> None:
    """A table of `rows` rows over the files; the last tenth of the files is test, and all rows of a file are of one group and label."""
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "image", "label", "split", "group"])
        for row in range(rows):
            file = row % len(names)
            split = "train" if file < 0.9 * len(names) else "test"
            writer.writerow([f"s{row}", names[file], ("a", "b")[file % 2], split, f"{split}-{file // 3}"])


def entry(folder: Path) -> prepare.Params:
    """Parameters of `prepare` for the folder."""
    return prepare.Params("diagnosis", "table", str(folder), {"index": "labels.csv"}, ("a", "b"), 0.1, 0.0, False, 0)


class Took(NamedTuple):
    """What one pass over all images took: seconds of the clock, and of a core."""

    wall: float
    busy: float


def took(run: Callable[[], object]) -> Took:
    """Of one call. What was written before is on the disk first, so that no side waits for another's bytes."""
    os.sync()
    wall, busy = time.monotonic(), time.process_time()
    run()
    return Took(time.monotonic() - wall, time.process_time() - busy)


def speed(n: int, rounds: int) -> list[str]:
    """A line for every side, medians of alternating rounds; a ratio is the median over the rounds, each of neighbours in time."""
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        names = write_images(Path("raw"), n)
        write_labels(Path("raw"), names, n)
        write_labels(Path("warm"), write_images(Path("warm"), 20), 100)
        prepare.run(entry(Path("warm")), "warm")  # imports are no matter of speed
        sides: dict[str, Callable[[], object]] = {
            "bare decode": lambda: bare(names, threads),
            "decode and SHA-256 twice": lambda: bare(names, threads, hashed=2),
            "decode and all digests": lambda: deque(ingest.check_all(((name, Path("raw", name)) for name in names), threads), 0),
            "prepare": lambda: prepare.run(entry(Path("raw")), "toy"),
        }
        found: dict[str, list[Took]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, run in sides.items():
                shutil.rmtree("results", ignore_errors=True)
                found[name].append(took(run))
        size = sum(Path("raw", name).stat().st_size for name in names) / n
        in_colour = Path("in-colour.jpg")
        Image.open(Path("raw", names[0])).resize((1024, 1024)).convert("RGB").save(in_colour, quality=90)
        last = [alone("one image", Path("raw", names[0])), alone("one of 1024x1024, greys stored in colour", in_colour)]
        os.chdir("/")
    lines = [f"{n} JPEG of 320x390, {size / 1e3:.0f} kB each, {threads} threads, {rounds} rounds, SHA-256 at {sha_rate():.0f} MB/s"]
    for name, times in found.items():
        wall = median(one.wall / own.wall for one, own in zip(found["bare decode"], times, strict=True))
        busy = median(one.busy / own.busy for one, own in zip(found["bare decode"], times, strict=True))
        rate, each = n / median(own.wall for own in times), median(own.busy for own in times) / n
        lines.append(f"  {name}: {rate:.0f} images/s, {wall:.0%}; {each * 1e6:.0f} us of a core for one, {busy:.0%}")
    return [*lines, *last]


def alone(what: str, file: Path, calls: int = 300) -> str:
    """The least time of one image in one thread, of many calls: what another load on the machine changes least."""
    sides: list[Callable[[Path], object]] = [decode, ingest.check]
    least = [float("inf")] * len(sides)
    for _ in range(calls):
        for side, run in enumerate(sides):
            begun = time.perf_counter()
            run(file)
            least[side] = min(least[side], time.perf_counter() - begun)
    return f"  {what}, the least of {calls}: decode {least[0] * 1e6:.0f} us, with all digests {least[1] * 1e6:.0f} us"


def decode(file: Path) -> None:
    """Read one file and decode it."""
    with Image.open(file) as image:
        image.load()


def sha_rate() -> float:
    """MB/s of SHA-256 on one core: it decides what two digests cost, and differs fivefold between processors."""
    data = bytes(2**25)
    begun = time.process_time()
    hashlib.sha256(data)
    return len(data) / 1e6 / (time.process_time() - begun)


def bare(names: list[str], threads: int, hashed: int = 0) -> None:
    """Read and decode every file; with `hashed`, take the SHA-256 of its bytes so many times, as an id and a table's digest demand."""

    def read(name: str) -> None:
        decode(Path("raw", name))
        for _ in range(hashed):
            hashlib.sha256(Path("raw", name).read_bytes())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, names))


def memory(rows: int) -> str:
    """Peak memory of a process that prepares a table of many rows."""
    with tempfile.TemporaryDirectory() as place:
        names = write_images(Path(place, "raw"), 500)
        write_labels(Path(place, "raw"), names, rows)
        command = [sys.executable, "-m", "benchmarks.prepare", "--child", place]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return f"{rows} rows over 500 files: {done.stdout.strip()}"


def child(place: str) -> str:
    """In a process of its own."""
    os.chdir(place)
    begun = time.monotonic()
    prepare.run(entry(Path("raw")), "toy")
    return f"{time.monotonic() - begun:.0f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def near(n: int = 100_000) -> list[str]:
    """A line for each kind of hashes."""
    rng = np.random.default_rng(0)

    def flipped(bases: "np.ndarray[tuple[int], np.dtype[np.uint64]]", bits: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        hashes = bases[rng.integers(0, len(bases), n)]
        for _ in range(bits):
            hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64))
        return np.unique(hashes)

    kinds = {
        "unrelated": np.unique(rng.integers(0, 2**64, n, dtype=np.uint64)),
        "50 clusters": flipped(rng.integers(0, 2**64, 50, dtype=np.uint64), 10),
        "one cluster": flipped(rng.integers(0, 2**64, 1, dtype=np.uint64), 12),
    }
    lines = []
    for name, hashes in kinds.items():
        begun = time.process_time()
        pairs = close_pairs(hashes, 4)
        lines.append(
            f"near duplicates of {len(hashes)} hashes, {name}: {len(pairs.first)} pairs in {time.process_time() - begun:.2f} s of a core"
        )
    return lines


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-speed", action="store_true", help="no memory, no near duplicates")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    gc.set_threshold(100_000, 50, 50)
    if given.child:
        print(child(given.child))
        return
    if not given.only_speed:
        print(*near(), memory(given.rows), sep="\n", flush=True)
    print(*speed(given.images, given.rounds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
