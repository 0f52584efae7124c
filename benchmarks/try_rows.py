"""Peak memory and time of `try --only-write` on a table of a million rows, a process of its own for each kind of table.

`python -m benchmarks.try_rows [KIND ...]`. The rows are sorted by label, the second class comes last, and all name one of two small images.
xlsx is read up to 10,000 rows (`limits.MAX_SHEET_ROWS`); more are refused by one line.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from PIL import Image

ROWS = 1_000_000
MEASURED = """
import resource, sys
from medbench import cli
code = cli.main(["try", sys.argv[1], "--modality", "x-ray", "--only-write", "--name", sys.argv[2]])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write(kind: str, questions: bool) -> Path:
    """A table of `ROWS` rows in the working folder."""
    half = ROWS // 2
    columns = {"image": ["a.png"] * half + ["b.png"] * half, "patient": [f"P{row // 3:07}" for row in range(ROWS)]}
    if questions:
        columns |= {"question": ["Is there a nodule?"] * ROWS, "answer": ["yes"] * half + ["no"] * half}
    else:
        columns |= {"label": ["benign"] * half + ["malignant"] * half}
    frame, path = pl.DataFrame(columns), Path(f"{'questions' if questions else 'labels'}-1m.{kind}")
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path, separator="\t" if kind == "tsv" else ",")
    return path


def main() -> None:
    """A line of Markdown for each kind."""
    root = Path.cwd()
    kinds = sys.argv[1:] or ["csv", "tsv", "parquet"]
    print("| table | size | time | peak memory |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (8, 8)).save(name)
        for kind in kinds:
            for questions in (False, True):
                path = write(kind, questions)
                begun = time.monotonic()
                command = [sys.executable, "-c", MEASURED, str(path), f"{path.stem}-{kind}"]
                done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
                code, peak = done.stdout.split()[-2:]
                assert code == "0", done.stderr
                size = path.stat().st_size / 1e6
                print(f"| {path.name} | {size:.0f} MB | {time.monotonic() - begun:.0f} s | {peak} MB |", flush=True)


if __name__ == "__main__":
    main()
