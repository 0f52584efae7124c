"""What is claimed about the speed of the statistics, as ratios and times of one run: python -m benchmarks.bootstrap

1. AUROC on 1,000 resamples against a loop over scikit-learn's roc_auc_score on the same resamples, and their largest difference.
2. Intervals of all metrics, on all and on leak-free samples, for the 216 cells of the study's sizes (generated predictions; a tenth
   of every test set has a duplicate in train), two processes, largest memory.
3. All gaps of these cells.
CPU seconds stand beside wall time, since other work on the machine stretches the latter.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl

from medbench import paths, tables, tasks
from medbench.analysis import paper
from medbench.metrics import diagnosis
from medbench.stages import gaps, interval, score
from medbench.stats.resamples import Resamples
from medbench.tasks.diagnosis import PredictionsDiagnosis
from medbench.tasks.vqa import PredictionsVqa
from tests.unit import written

N_RESAMPLES, N_TEST_RESAMPLES = 1000, 10_000


class Size(NamedTuple):
    """Test set of the study: samples and groups (lesions, patients, slides, images)."""

    n: int
    groups: int


SIZES = {
    "chexpert": Size(234, 200), "camelyon17": Size(920, 10), "ham10000": Size(1811, 1366), "papila": Size(56, 28), "gf3300": Size(594, 594),
    "fairvlmed": Size(1746, 1746), "slake": Size(1061, 96), "pathvqa": Size(6719, 858), "vqa-rad": Size(451, 203),
    "fairvlmed-vqa": Size(3994, 1997),
}  # fmt: skip
WORDS = ("left", "right", "lung", "liver", "mass", "nodule", "with", "contrast", "no", "effusion")


def compare_auroc() -> None:
    """Ratio and largest difference at two sizes."""
    from sklearn.metrics import roc_auc_score

    for n in (1811, 234):
        generator = np.random.default_rng(n)
        labels = (generator.random(n) < 0.15).astype(np.int64)
        score_1 = np.round(generator.random(n) + 0.4 * labels, 3) / 2
        resamples = Resamples(0, "benchmark", n)
        counts = resamples.block(0).astype(np.int64)
        [weights] = resamples.weights(N_RESAMPLES)
        started = time.process_time()
        ours = diagnosis.auroc(labels, np.column_stack([1 - score_1, score_1]), weights)
        own = time.process_time() - started
        samples = [np.repeat(np.arange(n), row) for row in counts]
        started = time.process_time()
        theirs = np.array([roc_auc_score(labels[sample], score_1[sample]) for sample in samples])
        loop = time.process_time() - started
        times = f"{own:.4f} s against {loop:.3f} s, {loop / own:.0f}x"
        print(f"AUROC, {n} samples, {N_RESAMPLES} resamples: {times}, largest difference {np.abs(ours - theirs).max():.1e}")


def predict(dataset: str, task: str, model: str, mode: str) -> None:
    """Generated predictions of one cell, the same test set in every cell."""
    size = SIZES[dataset]
    of_data = np.random.default_rng([size.n, 1])
    of_cell = np.random.default_rng(list(f"{dataset}/{model}/{mode}".encode()))
    names = [f"{number:05d}" for number in range(size.n)]
    group_ids = [f"g{number * size.groups // size.n}" for number in range(size.n)]
    labels = (of_data.random(size.n) < 0.3).astype(np.int64)
    if task == "diagnosis":
        one = 1 / (1 + np.exp(-of_cell.normal(labels * of_cell.uniform(0, 2))))
        scores = np.column_stack([1 - one, one]).tolist()
        columns = {"sample_id": names, "group_id": group_ids, "label": labels, "scores": scores, "draws": None, "by_prompts": None}
        frame = pl.DataFrame(columns, schema=tables.columns(PredictionsDiagnosis))
        return written.predictions(task, frame, dataset, model, mode)
    closed = of_data.random(size.n) < 0.5
    references = [("no", "yes")[label] if one else " ".join(of_data.choice(WORDS, 3)) for label, one in zip(labels, closed, strict=True)]
    answers = [reference if right else "no left mass" for reference, right in zip(references, of_cell.random(size.n) < 0.7, strict=True)]
    columns = {
        "sample_id": names, "group_id": group_ids, "answer_type": ["closed" if one else "open" for one in closed], "is_yes_no": closed,
        "question": ["is there a mass?"] * size.n, "reference": references, "answer": answers,
        "finish_reason": ["stop"] * size.n, "n_tokens": [3] * size.n,
    }  # fmt: skip
    frame = pl.DataFrame(columns, schema=tables.columns(PredictionsVqa))
    return written.predictions(task, frame, dataset, model, mode)


def write_duplicates(dataset: str) -> None:
    """Every tenth sample of test stands in train too."""
    rows = [("test", f"{number:05d}", "train", "exact-image", "t") for number in range(0, SIZES[dataset].n, 10)]
    tables.write(tables.Duplicates, pl.DataFrame(rows, schema=tables.columns(tables.Duplicates), orient="row"), paths.duplicates(dataset))


def one_cell(cell: tuple[str, str, str, str]) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of the interval job of one cell."""
    task, *names = cell
    started = time.process_time()
    interval.run(interval.Params(task, tasks.get(task).primary, 0, N_RESAMPLES, N_TEST_RESAMPLES, 0.95, False, 30), *names)
    return time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole_study() -> None:
    """Intervals and gaps of the study's grid in a temporary folder."""
    figures = paper.published()
    who = paper.study(figures)
    cells = [(who.tasks[cell.dataset], *cell) for cell in sorted(who.cells)]
    for dataset in who.tasks:
        write_duplicates(dataset)
    for task, *names in cells:
        predict(names[0], task, *names[1:])
        score.run(score.Params(task), *names)
    started = time.time()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        used = list(pool.map(one_cell, cells))
    cpu, memory = sum(seconds for seconds, _ in used), max(megabytes for _, megabytes in used)
    print(
        f"Intervals of all metrics, {len(cells)} cells, 2 processes: {time.time() - started:.1f} s "
        f"(CPU {cpu:.1f} s, {max(used)[0]:.2f} s for the slowest cell), {memory:.0f} MB"
    )
    params = gaps.Params(
        candidates=tuple((one.model, one.family, one.role, tuple(sorted(one.in_domain))) for one in who.candidates),
        cells=tuple((cell.dataset, cell.model, cell.mode) for cell in sorted(who.cells)),
        tasks=who.tasks, primary={name: tasks.get(name).primary for name in tasks.names()},
        margin=dict.fromkeys(tasks.names(), 0.02),
        chance={name: tasks.get(name).chance for name in tasks.names()},
        off_the_shelf="ots", adapted=("lp", "lora"), seed=0,
        n_resamples=N_RESAMPLES, n_test_resamples=N_TEST_RESAMPLES, level=0.95, min_groups=30,
    )  # fmt: skip
    started, cpu = time.time(), time.process_time()
    gaps.run(params, "study")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"All gaps: {time.time() - started:.1f} s (CPU {time.process_time() - cpu:.1f} s), {memory:.0f} MB")


def main() -> None:
    """Run all, or only the comparison with scikit-learn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-auroc", action="store_true", help="the comparison with scikit-learn alone")
    arguments = parser.parse_args()
    compare_auroc()
    sys.stdout.flush()
    if not arguments.only_auroc:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            whole_study()
            os.chdir(Path(folder).parent)


if __name__ == "__main__":
    main()
