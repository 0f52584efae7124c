"""medbench beside lmms-eval 0.7.3 and clip-benchmark 1.6.2: `python -m benchmarks.peers`.

The peers are installed below `.peers/`, once, and see this environment: torch and transformers are the same on both sides, and each
side has one thread. The sides alternate, each run in a fresh process. A row is the ratio peer / medbench of a phase, above 1 where
medbench is faster: the smallest, the median and the largest of the pairs, by CPU seconds (user and system), and the median of wall
seconds. Answers and embeddings of both sides must be equal, and how many are is printed. Images and questions are phantoms, or real where
MEDBENCH_REAL_DATA names their folder.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers import clock, environment, material

TOLERANCE = 1e-5
"""Of a component of an embedding of unit length."""


class Side(NamedTuple):
    """A process: the name of the side, the module and its arguments before the folder."""

    name: str
    module: str
    arguments: tuple[str, ...]

    def run(self, clone: Path, folder: Path) -> clock.Ran:
        """Once."""
        own = self.name in ("medbench", "scikit-learn")
        interpreter = sys.executable if own else str(environment.python())
        return clock.run([interpreter, "-m", f"benchmarks.peers.{self.module}", *self.arguments, str(folder)], clone, folder)


class Pair(NamedTuple):
    """One run of each side."""

    medbench: clock.Ran
    peer: clock.Ran


class Row(NamedTuple):
    """What is printed: a phase of medbench against the peer's of that name, and the median ratio to reach."""

    work: str
    phase: str
    aim: float = 1.0
    peer: str = ""  # the peer's phase, where it has another name


def pairs(clone: Path, sides: tuple[Side, Side], count: int) -> list[Pair]:
    """The sides in turns, after a run of each that fills the caches of files and bytecode."""
    done = []
    with tempfile.TemporaryDirectory(dir=clone) as place:
        for number in range(count + 1):
            order = sides if number % 2 else sides[::-1]
            ran = {side.name: side.run(clone, clone / f"{Path(place).name}-{number}-{side.name}") for side in order}
            done.append(Pair(ran[sides[0].name], ran[sides[1].name]))
    return done[1:]


def line(row: Row, done: list[Pair]) -> str:
    """Of the table."""
    took = [(pair.peer.phases[row.peer or row.phase], pair.medbench.phases[row.phase]) for pair in done]
    cpu, wall = [theirs.cpu / ours.cpu for theirs, ours in took], [theirs.wall / ours.wall for theirs, ours in took]
    theirs, ours = (statistics.median(one.cpu for one in side) for side in zip(*took, strict=True))
    middle = statistics.median(cpu)
    short = "" if middle >= row.aim else f"  below {row.aim}"
    ratios = f"{min(cpu):.2f} / {middle:.2f} / {max(cpu):.2f}"
    return f"| {row.work} | {ours:.2f} | {theirs:.2f} | {ratios} | {statistics.median(wall):.2f} |{short}"


def kept(done: list[Pair], name: str) -> tuple[list[Any], list[Any]]:
    """What the runs of medbench and of the peer wrote as JSON."""
    ours, theirs = ([json.loads((one.folder / name).read_text(encoding="utf-8")) for one in side] for side in zip(*done, strict=True))
    return ours, theirs


def answers(done: list[Pair]) -> str:
    """How many are equal in all pairs."""
    ours, theirs = kept(done, "answers.json")
    n = len(ours[0])
    if any(len(one) != n for one in (*ours, *theirs)):
        raise SystemExit("the sides answered different numbers of questions")
    equal = [sum(mine == other for mine, other in zip(*both, strict=True)) for both in zip(ours, theirs, strict=True)]
    return f"answers equal: {min(equal)} of {n} in each of {len(done)} pairs"


def vectors(done: list[Pair]) -> str:
    """How many are equal within TOLERANCE in all pairs, and the largest difference."""
    equal, largest = [], 0.0
    for pair in done:
        ours, theirs = (np.load(side.folder / "vectors.npz") for side in pair)
        if ours["names"].tolist() != theirs["names"].tolist():
            raise SystemExit("the sides embedded different images")
        apart = np.abs(ours["vectors"] - theirs["vectors"]).max(axis=1)
        equal.append(int((apart <= TOLERANCE).sum()))
        largest = max(largest, float(apart.max()))
    counted = f"{min(equal)} of {len(apart)} in each of {len(done)} pairs"
    return f"embeddings equal within {TOLERANCE:g}: {counted}, largest difference {largest:.1e}"


def spreads(done: list[Pair]) -> str:
    """Of AUROC over the resamples: those of medbench are of groups, and drawn otherwise."""
    ours, theirs = kept(done, "spread.json")
    return f"standard deviation of AUROC: {statistics.median(ours):.4f} by groups, {statistics.median(theirs):.4f} by samples"


def asked(clone: Path, count: int, peer: str, batch: int, rows: tuple[Row, ...]) -> Iterator[str]:
    """Lines on questions."""
    material.configure(clone, batch)
    sides = Side("medbench", "asked", ("medbench", str(batch))), Side("lmms-eval", "asked", (peer, str(batch)))
    done = pairs(clone, sides, count)
    yield from (line(row, done) for row in rows)
    yield f"  {answers(done)}"


def encoded(clone: Path, count: int, size: str, what: str) -> Iterator[str]:
    """Lines on images."""
    n = material.SIZES["peers-images" if size == "tiny" else "peers-fewer-images"]
    done = pairs(clone, tuple(Side(name, "encoded", (name, size)) for name in ("medbench", "clip-benchmark")), count)  # type: ignore[arg-type]
    yield line(Row(f"encode {n} images, {what}, images read on both sides", "encode"), done)
    yield line(Row(f"linear probe on their embeddings, {what}", "probe"), done)
    yield line(Row(f"all steps of zero-shot and probe, {what}", "all"), done)
    yield f"  {vectors(done)}"


def resampled(clone: Path, count: int, peer: str, what: str) -> Iterator[str]:
    """Lines on intervals."""
    sides = Side("medbench", "resampled", ("medbench",)), Side(peer, "resampled", (peer,))
    done = pairs(clone, sides, count)
    yield line(Row(f"intervals of all 14 measures, n = 1,811, B = 1,000, against {what}", "intervals"), done)
    yield line(Row("the same, ten times B for the measure that decides (medbench alone)", "stage", peer="intervals"), done)
    yield f"  {spreads(done)}"


ONE = Row("200 questions, mini LLaVA, batch 1, asking", "asking"), Row("the same, whole process", "whole")
BATCHES = Row("200 questions, mini LLaVA, batch 16, asking", "asking", 1.2), Row("the same, whole process", "whole")
MEASURES: dict[str, Callable[[Path, int], Iterator[str]]] = {
    "one": lambda clone, count: asked(clone, count, "llava_hf", 1, ONE),
    "batches": lambda clone, count: asked(clone, count, "huggingface", 16, BATCHES),
    "tiny": lambda clone, count: encoded(clone, count, "tiny", "tiny open_clip"),
    "b32": lambda clone, count: encoded(clone, count, "b32", "open_clip of ViT-B/32's size"),
    "sklearn": lambda clone, count: resampled(clone, count, "scikit-learn", "AUROC by a loop over scikit-learn"),
    "bootstrap": lambda clone, count: resampled(clone, count, "lmms-eval", "AUROC by lmms-eval's bootstrap"),
}


def main() -> None:
    """Prints the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    given = parser.parse_args()
    environment.python()
    with tempfile.TemporaryDirectory(prefix="medbench-peers-") as place:
        clone = Path(place) / "clone"
        material.clone(clone)
        print("| work | medbench, CPU s | peer, CPU s | peer / medbench, CPU: min / median / max | wall: median |")
        print("|---|---|---|---|---|", flush=True)
        for name in given.only:
            for text in MEASURES[name](clone, given.pairs):
                print(text, flush=True)


if __name__ == "__main__":
    main()
