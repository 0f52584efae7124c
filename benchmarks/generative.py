"""Generative models with random weights: batches against single questions, predict and LoRA against bare loops, what a kill costs.

`python -m benchmarks.generative`, about six minutes on two quiet cores. Ratios of one run, on the chest questions of the demo:
- questions a second of the stage `predict` in batches against one at a time, with the mini model; answers must be equal;
- tokens a second of `predict` (images decoded, questions encoded, answers kept) against transformers' `generate` on tensors that are ready;
- `predict` killed at 90% of its time and run again, by the stage's own command, starts of Python and torch counted;
- samples a second of the LoRA training against a bare loop over ready tensors.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.campaign import copy_sources
from benchmarks.epochs import timed_epochs
from benchmarks.random_llava import MODULE, SIZES, checkpoint
from medbench import paths
from medbench.adapt import tuned
from medbench.datasets import stored
from medbench.datasets.images import decode
from medbench.jobs.partial import Work
from medbench.models import generative_base, loading
from medbench.models.answering import Query
from medbench.models.asking import Asking
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative
from medbench.models.hub_answerer import HubAnswerer
from medbench.predict import generative
from medbench.stages import adapt, predict
from medbench.tasks import vqa

DATASET = "phantom-vqa-radiology"
SMALLER, ROUNDS = "nano-vqa-radiology", 3
MEASURES = ("batches", "bare", "lora", "restart")
PUT = Asking("{question}", "{question} Answer yes or no.", 32)
LORA = {
    "r": 16, "alpha": 32, "dropout": 0.0, "learning_rate": 1e-4, "projector_learning_rate": 1e-5, "weight_decay": 0.0, "epochs": 1,
    "batch_size": 16, "warmup": 0.03, "gradient_checkpointing": False,
}  # fmt: skip


def params(folder: str, batch_size: int) -> predict.Params:
    """Of the stage `predict`."""
    source = {"module": MODULE, "checkpoint": folder, "revision": None, "batch_size": batch_size}
    return predict.Params("medbench.predict.generative", "vqa", source, (), asking=PUT._asdict())


class Answered(NamedTuple):
    """Predictions of the test split, seconds without loading the model, tokens written (rows x steps)."""

    frame: Any
    seconds: float
    tokens: int


def answered(folder: str, batch_size: int, dataset: str = DATASET) -> Answered:
    """By the stage's own code."""
    loaded = generative_base.load(Source(MODULE, folder, None, batch_size))
    write, written = loaded.model.generate, [0]

    def counted(**given: Any) -> Any:
        output = write(**given)
        if isinstance(output, torch.Tensor):  # not for the keys and values of a shared beginning
            written[0] += output.shape[0] * (output.shape[1] - given["input_ids"].shape[1])
        return output

    loaded.model.generate = counted
    plain = generative_base.load
    generative_base.load = lambda source, **placement: loaded
    try:
        with tempfile.TemporaryDirectory() as place:
            begun = time.monotonic()
            frame = generative.predict(params(folder, batch_size), dataset, "bench", "ots", Work(Path(place)))
            return Answered(frame, time.monotonic() - begun, written[0])
    finally:
        generative_base.load = plain


def batches(folder: str, batch_size: int) -> str:
    """A line: batches against single questions."""
    (one, alone, _), (many, together, _) = answered(folder, 1), answered(folder, batch_size)
    if torch.cuda.is_available():
        equal = f"{(one['answer'] != many['answer']).mean():.1%} of answers differ (bfloat16)"
    elif one.equals(many):
        equal = "answers equal"
    else:
        raise SystemExit("a batch answers otherwise than single questions")
    n = one.height
    rates = f"{n / together:.1f} questions/s in batches of {batch_size}, {n / alone:.1f} one at a time"
    return f"{n} questions, {Path(folder).name} LLaVA: {rates}: {alone / together:.1f}x; {equal}"


def bare(folder: str, batch_size: int) -> str:
    """A line: the stage against transformers' `generate` on ready tensors."""
    model: Generative = loading.load(Source(MODULE, folder))
    test = vqa.asked(SMALLER, "test")
    asked = generative.questions_of(SMALLER, test, params(folder, batch_size))
    ready = []
    for batch in HubAnswerer(model, batch_size).batches(asked, batch_size):
        queries = [asked.with_images(place, batch.images) for place in batch.places]
        ready.append(model.placed(model.inputs(queries, PUT.max_new_tokens)))

    def loop() -> int:
        written = 0
        with torch.inference_mode():
            for inputs in ready:
                output = model.model.generate(**inputs, max_new_tokens=PUT.max_new_tokens, do_sample=False)
                written += output.shape[0] * (output.shape[1] - inputs["input_ids"].shape[1])
        return written

    with torch.inference_mode():
        model.model.generate(**ready[-1], max_new_tokens=4, do_sample=False)  # warm
    by_stage, by_loop = [], []
    for _ in range(ROUNDS):  # in turns: the machine's speed wanders
        begun = time.monotonic()
        by_loop.append(loop() / (time.monotonic() - begun))
        done = answered(folder, batch_size, SMALLER)
        by_stage.append(done.tokens / done.seconds)
    ours, of_bare = max(by_stage), max(by_loop)
    return f"predict, {Path(folder).name} LLaVA: {ours:.0f} tokens/s, bare generate {of_bare:.0f}: {ours / of_bare:.0%}"


def lora(folder: str) -> str:
    """A line: the training loop against the same steps by hand over ready tensors."""
    source = {"module": MODULE, "checkpoint": folder, "revision": None, "batch_size": 64}
    asking = PUT._asdict()
    with timed_epochs() as timed:
        adapt.STAGE.execute(
            adapt.Params("medbench.adapt.generative_lora", "vqa", source, {**LORA, "epochs": 2}, (), 0, asking), DATASET, "bench", "lora"
        )
    model: Generative = loading.load(Source(MODULE, folder))
    tuned.build(model, LORA["r"], LORA["alpha"], LORA["dropout"])
    train = vqa.asked(DATASET, "train")
    images = {row.image_id: row.image for rows in stored.images(DATASET, train.image_ids, 64) for row in rows}
    order = torch.randperm(len(train.questions), generator=torch.Generator().manual_seed(0)).tolist()
    ready = []
    for start in range(0, len(order), LORA["batch_size"]):
        places = order[start : start + LORA["batch_size"]]
        asked = [Query("train", decode(images[train.image_ids[place]]), PUT.text(train.questions[place])) for place in places]
        ready.append(model.placed(model.train_batch(asked, [train.answers[place] for place in places])))
    optimizer = torch.optim.AdamW(list(tuned.trainable(model).values()), lr=1e-4)
    model.model.train()

    def steps() -> float:
        begun = time.monotonic()
        for inputs in ready:
            optimizer.zero_grad()
            with model.precision():
                model.model(**inputs).loss.backward()
            optimizer.step()
        return time.monotonic() - begun

    of_bare = min(steps() for _ in range(2))
    ours, theirs = len(order) / min(timed), len(order) / of_bare
    return f"LoRA, {Path(folder).name} LLaVA, {len(order)} samples: {ours:.1f} samples/s, bare loop {theirs:.1f}: {ours / theirs:.0%}"


def restart(folder: Path, share: float) -> str:
    """A line: `predict` killed at a share of its time and run again."""
    command = [sys.executable, "-m", "medbench", "predict", DATASET, "bench", "ots", "--configfile", "config/bench.yaml"]
    output = folder / paths.predictions(DATASET, "bench", "ots")

    def run() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

    def timed() -> tuple[float, str]:
        begun = time.monotonic()
        if run().wait():
            raise SystemExit("predict failed")
        return time.monotonic() - begun, hashlib.sha256(output.read_bytes()).hexdigest()

    whole, undisturbed = timed()
    output.unlink()
    begun = time.monotonic()
    killed = run()
    time.sleep(share * whole)
    if killed.poll() is not None:
        raise SystemExit("predict ended before it could be killed: the machine is not quiet")
    killed.kill()
    killed.wait()
    before = time.monotonic() - begun
    again, found = timed()
    if found != undisturbed:
        raise SystemExit("predictions after a kill are not those of an undisturbed run")
    cost = (before + again - whole) / whole
    return f"predict: undisturbed {whole:.1f} s, killed after {before:.1f} s, rerun {again:.1f} s: the kill cost {cost:.1%}; tables equal"


def clone(folder: Path, size: str) -> None:
    """Sources with a checkpoint of random weights in their registry, and the data set prepared."""
    copy_sources(folder)
    models = yaml.safe_load((folder / "config/models.yaml").read_text())
    about = {"family": "llava", "role": "generalist", "architecture": "llava", "pretrained_on": ["everyday"]}
    models["bench"] = {**about, "checkpoint": checkpoint(folder / size, size), "batch_size": 16, "max_new_tokens": 64}
    (folder / "config/models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    run = {"run": "bench", "models": ["bench"], "datasets": [DATASET], "modes": ["ots"]}
    (folder / "config/bench.yaml").write_text(yaml.safe_dump(run))
    for name in (DATASET, SMALLER):
        prepare = [sys.executable, "-m", "medbench", "prepare", name, "--configfile", "config/bench.yaml"]
        subprocess.run(prepare, cwd=folder, check=True, capture_output=True)


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=SIZES, default="small", help="of all but the mini model; long: 576 tokens an image, as LLaVA-1.5; 7b needs a GPU"
    )
    parser.add_argument("--at", type=float, default=0.9, help="share of the undisturbed time after which the kill comes")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory(prefix="medbench-generative-") as place:
        folder = Path(place) / "clone"
        clone(folder, given.size)
        os.chdir(folder)
        own = str(folder / given.size)
        if "batches" in given.only:
            print(batches(checkpoint(folder / "mini", "mini"), 64), flush=True)
            if torch.cuda.is_available():
                print(batches(own, 64), flush=True)
        for name, measure in (("bare", lambda: bare(own, 16)), ("lora", lambda: lora(own)), ("restart", lambda: restart(folder, given.at))):
            if name in given.only:
                print(measure(), flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
