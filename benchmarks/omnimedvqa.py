"""OmniMedVQA's memory: `prepare` of a drawn set in its official layout, at several numbers of images, each in a process of its own.

`python -m benchmarks.omnimedvqa`, about two minutes on two quiet cores. All 42 files, questions in the published proportions, an image of
its own for each question (the real set has 82,000). Images are tiny PNG, since what could grow is what is kept of each, not its bytes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medbench.datasets.layouts.omnimedvqa import FOLDER, PARTS
from medbench.datasets.layouts.phantom import encode
from medbench.stages import prepare

SIZES = (2_000, 10_000, 20_000)
SIDE = 24


def draw(folder: Path, n: int) -> None:
    """The files of questions and about `n` images, at least one a file."""
    (folder / FOLDER).mkdir(parents=True)
    rng, total = np.random.default_rng(0), sum(PARTS.values())
    for part, published in PARTS.items():
        (folder / "Images" / part).mkdir(parents=True)
        rows = []
        for number in range(max(1, round(published * n / total))):
            image = f"Images/{part}/{number}.png"
            (folder / image).write_bytes(encode(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).data)
            options = {f"option_{letter}": f"finding {letter} of {number}" for letter in "ABCD"}
            asked = {"dataset": part, "question_id": f"{part}_{number}", "question": "What is seen?", "question_type": "Disease Diagnosis"}
            rows.append({**asked, **options, "gt_answer": options["option_B"], "image_path": image, "modality_type": "X-Ray"})
        (folder / FOLDER / f"{part}.json").write_text(json.dumps(rows), encoding="utf-8")


def child(place: str) -> str:
    """Seconds and peak memory of a process that prepares what lies in `place`."""
    os.chdir(place)
    begun = time.monotonic()
    prepare.run(prepare.Params("mcq", "omnimedvqa", str(Path("raw")), {}, (), 0.1, 0.0, False, 0), "omni")
    return f"{time.monotonic() - begun:.0f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def main() -> None:
    """Prints a line a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(child(given.child))
        return
    for n in given.sizes:
        with tempfile.TemporaryDirectory() as place:
            draw(Path(place) / "raw", n)
            command = [sys.executable, "-m", "benchmarks.omnimedvqa", "--child", place]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{n} images: {done.stdout.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
