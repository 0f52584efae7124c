"""How fast `prepare` is beside a bare decode loop, what it keeps in memory, and how long the search for near duplicates takes.

`python -m benchmarks.prepare`. Ratios of one run, on all cores:
- images a second of `prepare` (byte digests, pixel digests, perceptual hashes, tables) against a loop that reads and decodes the same
  JPEG files of 320x390 pixels in as many threads;
- peak memory of a table of CheXpert's size (223,414 rows; the files repeat), a process of its own;
- near duplicates among 100,000 hashes on one core: unrelated ones, ones in clusters, and ones that share most of their bits.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

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
    """A table of `rows` rows over the files; the last tenth is test."""
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "image", "label", "split", "group"])
        for row in range(rows):
            split = "train" if row < 0.9 * rows else "test"
            writer.writerow([f"s{row}", names[row % len(names)], ("a", "b")[row % 2], split, f"{split}-{row // 3}"])


def entry(folder: Path) -> prepare.Params:
    """Parameters of `prepare` for the folder."""
    return prepare.Params("diagnosis", "table", str(folder), {"index": "labels.csv"}, ("a", "b"), 0.1, 0.0, False, 0)


def speed(n: int) -> str:
    """A line with both rates."""
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        names = write_images(Path("raw"), n)
        write_labels(Path("raw"), names, n)
        write_labels(Path("warm"), write_images(Path("warm"), 10), 100)
        prepare.run(entry(Path("warm")), "warm")  # imports are no matter of speed
        rates = {}
        for name, run in (("decode", lambda: bare(names, threads)), ("prepare", lambda: prepare.run(entry(Path("raw")), "toy"))):
            begun = time.monotonic()
            run()
            rates[name] = n / (time.monotonic() - begun)
        os.chdir("/")
    ratio = rates["prepare"] / rates["decode"]
    made = ", ".join(f"{name} {rate:.0f} images/s" for name, rate in rates.items())
    return f"{n} JPEG of 320x390, {threads} threads: {made}: {ratio:.0%}"


def bare(names: list[str], threads: int) -> None:
    """Read and decode every file."""

    def decode(name: str) -> None:
        with Image.open(Path("raw", name)) as image:
            image.load()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, names))


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
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(child(given.child))
        return
    for line in near():
        print(line, flush=True)
    print(memory(given.rows), flush=True)
    print(speed(given.images), flush=True)


if __name__ == "__main__":
    main()
