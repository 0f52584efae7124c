"""Contrastive models at the size of ViT-B/32 with random weights: probe against the study's recipe, embedding and LoRA against bare loops.

`python -m benchmarks.contrastive`, about five minutes on two quiet cores. Ratios of one run:
- `lp` against the study's recipe, which runs the frozen backbone over train and test in each of 50 epochs. Two epochs are timed and
  extrapolated linearly;
- images a second of the stage `embed` (table read, JPEG decoded, vectors written) against a forward loop over tensors in memory;
- peak memory of `embed` over 100,000 images, with a tiny model so that it ends;
- samples a second of the LoRA training loop against a bare loop over preloaded tensors;
- images a second of batches of 64 in parts that fit a CPU's caches (`Contrastive.pieces`) against whole batches;
- the same parts with freed memory kept (`process.keep_memory`, as jobs do) against given back to the system.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from benchmarks.epochs import timed_epochs
from medbench import paths, tables
from medbench.adapt import published_probe
from medbench.adapt.job import class_weights
from medbench.datasets import ingest
from medbench.demo import phantoms
from medbench.demo.hubformat import save_processor, train_tokenizer
from medbench.demo.minimodels import build
from medbench.jobs import process
from medbench.jobs.microbatching import Microbatching
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.stages import adapt, embed
from medbench.tasks.diagnosis import SamplesDiagnosis

EPOCHS, TIMED = 50, 2
MODULE = "medbench.models.contrastive.clip"
LORA = {
    "target": "head", "r": 8, "alpha": 32, "dropout": 0.05, "learning_rate": 1e-4, "head_learning_rate": 1e-3, "weight_decay": 0.01,
    "epochs": 1, "batch_size": 32, "warmup": 0.1, "gradient_checkpointing": False,
}  # fmt: skip


def checkpoint(folder: Path, size: str) -> str:
    """An untrained CLIP in hub format: `b32` and `b16` as published, or `mini`."""
    tokenizer = train_tokenizer("clip", ["a dark square"])
    torch.manual_seed(0)
    if size == "mini":
        build("clip", tokenizer).save_pretrained(folder)
    else:
        config = CLIPConfig(text_config={"num_hidden_layers": 1, "vocab_size": 1000, "eos_token_id": 4})  # only its images are used
        config.vision_config.patch_size = {"b32": 32, "b16": 16}[size]
        CLIPModel(config).save_pretrained(folder)
    if size == "mini":
        save_processor("clip", tokenizer, folder)
    else:
        tokenizer.save_pretrained(folder)
        CLIPImageProcessor().save_pretrained(folder)
    return str(folder)


def dataset(n: int, copies: int = 1) -> None:
    """Tables of drawn skin lesions as JPEG of 320x390 pixels; every image stands `copies` times under other names."""
    drawn = list(phantoms.cohort("dermatology", n, 0))[:n]
    rows: list[tuple[str, str, str, int, str]] = []

    def images() -> Iterator[tuple[ingest.Checked, bool]]:
        for number, phantom in enumerate(drawn):
            stream = io.BytesIO()
            Image.fromarray(phantom.image).resize((320, 390)).save(stream, "JPEG", quality=90)
            split = ("train", "train", "val", "test", "test")[number % 5]
            for copy in range(copies):
                image = ingest.Checked(f"{number}-{copy}", f"{number}-{copy}", 0, stream.getvalue(), None)
                yield image, copy == 0 and split != "train"
            rows.append((split, f"s{number}", f"g{number}", int(phantom.label), f"{number}-0"))

    paths.images("toy").parent.mkdir(parents=True, exist_ok=True)
    ingest.write_table(paths.images("toy"), images())
    types = tables.columns(SamplesDiagnosis)
    for split in paths.SPLITS:
        mine = [dict.fromkeys(types) | dict(zip(list(types)[:4], row[1:], strict=True)) for row in rows if row[0] == split]
        tables.write(SamplesDiagnosis, pl.DataFrame(mine, schema=types), paths.samples("toy", split))


def seconds(run: Callable[[], Any]) -> float:
    """Of one call."""
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def pixels(model: loading.Contrastive) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Image id -> pixels, all in memory."""
    table = tables.read(tables.Images, paths.images("toy"), ["image_id", "image"])
    decode = lambda data: Image.open(io.BytesIO(data)).convert("RGB")  # noqa: E731
    return {name: model.pixels(decode(data)) for name, data in table.iter_rows()}


def split(name: str) -> tuple[list[str], "np.ndarray[Any, np.dtype[np.int64]]"]:
    """Image ids and labels."""
    frame = tables.read(SamplesDiagnosis, paths.samples("toy", name))
    return frame["image_id"].to_list(), frame["label"].to_numpy().astype(np.int64)


def published(model: loading.Contrastive, held: dict[str, Any], epochs: int) -> None:
    """The study's loop: the backbone over train and test in every epoch."""
    (train, labels), (val, more), (test, _) = split("train"), split("val"), split("test")
    train, labels = train + val, np.concatenate([labels, more])
    head = nn.Linear(512, 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-5, weight_decay=0.0)
    weights = torch.from_numpy(class_weights(labels, 2)).float()
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(train))
        for start in range(0, len(order), 8):
            batch = order[start : start + 8]
            with torch.inference_mode():
                features = model.encode_images(model.to_device(np.stack([held[train[place]] for place in batch]))).features
            loss = nn.functional.cross_entropy(head(features.clone()), torch.from_numpy(labels[batch]), weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            for start in range(0, len(test), 8):
                head(model.encode_images(model.to_device(np.stack([held[name] for name in test[start : start + 8]]))).features)


def probe(n: int) -> list[str]:
    """Lines on `embed`, `lp` and the study's recipe."""
    folder = checkpoint(Path("b32"), "b32")
    dataset(n)
    model: loading.Contrastive = loading.load(Source(MODULE, folder))
    held = pixels(model)
    names = list(held)
    batches = [np.stack([held[name] for name in names[start : start + 64]]) for start in range(0, len(names), 64)]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model.encode_images(model.to_device(batch))

    with torch.inference_mode():
        model.encode_images(model.to_device(batches[0]))  # warm
    of_bare = seconds(bare)
    embedding = seconds(lambda: embed.STAGE.execute(embed.Params(Source(MODULE, folder)._asdict(), 64), "toy", "m"))
    recipe = {"c_values": [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], "n_splits": 5, "max_iter": 1000}
    microbatching = seconds(
        lambda: adapt.STAGE.execute(adapt.Params("medbench.adapt.probe", "diagnosis", None, recipe, ("a", "b"), 0), "toy", "m", "lp")
    )
    studys = seconds(lambda: published(model, held, TIMED)) * EPOCHS / TIMED
    return [
        f"embed, {n} JPEG of 320x390 at ViT-B/32: {n / embedding:.1f} images/s, bare forward {n / of_bare:.1f}: {of_bare / embedding:.0%}",
        f"the study's recipe, {TIMED} of {EPOCHS} epochs timed: {studys:.0f} s; lp {microbatching:.2f} s, with the embedding pass "
        f"{microbatching + embedding:.1f} s: {studys / (microbatching + embedding):.0f}x and {studys / microbatching:.0f}x",
        f"test AUROC: lp {auroc('lp'):.3f}, the study's recipe on the same features {auroc('published'):.3f}",
    ]


def auroc(which: str) -> float:
    """On the test split."""
    from medbench.adapt import linear
    from medbench.datasets import stored

    (test, labels), (train, of_train), (val, more) = split("test"), split("train"), split("val")
    if which == "lp":
        logits = linear.read(paths.adapter_weights("toy", "m", "lp")).logits(stored.features("toy", "m", test))
    else:
        features = stored.features("toy", "m", train + val).astype(np.float64)
        known = np.concatenate([of_train, more])
        recipe = {"learning_rate": 5e-5, "weight_decay": 0.0, "epochs": EPOCHS, "batch_size": 8}
        coef, intercept = published_probe.train(features, known, class_weights(known, 2), recipe, 0)
        logits = stored.features("toy", "m", test) @ coef.T + intercept
    return float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))


def memory(n: int) -> str:
    """A line from a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "benchmarks.contrastive", "--child", str(n)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=place, env=environment)
    return done.stdout.strip()


def child(n: int) -> str:
    """Write the tables in a process that ends before, then embed."""
    subprocess.run([sys.executable, "-c", f"from benchmarks.contrastive import dataset; dataset(200, {n // 200})"], check=True)
    folder = checkpoint(Path("mini"), "mini")
    took = seconds(lambda: embed.STAGE.execute(embed.Params(Source(MODULE, folder)._asdict(), 64), "toy", "m"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"embed, {n} images of 320x390 with the mini CLIP: {took:.0f} s, peak {peak:.0f} MB"


def lora(n: int) -> str:
    """A line on the training loop: the same steps by hand over preloaded tensors."""
    import shutil

    from medbench.adapt import classifier as classifiers

    shutil.rmtree("results", ignore_errors=True)
    folder = checkpoint(Path("b32"), "b32")
    dataset(n)
    source = {"module": MODULE, "checkpoint": folder, "revision": None, "batch_size": 32}
    with timed_epochs() as timed:
        adapt.STAGE.execute(
            adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source, {**LORA, "epochs": 2}, ("a", "b"), 0), "toy", "m", "lora"
        )
    model: loading.Contrastive = loading.load(Source(MODULE, folder), dtype=torch.float32)
    held = pixels(model)
    made = classifiers.build(model, 512, 2, LORA["r"], LORA["alpha"], LORA["dropout"])  # type: ignore[arg-type]
    names, labels = split("train")
    inputs = model.to_device(np.stack([held[name] for name in names]))
    optimizer = torch.optim.AdamW(list(made.trainable().values()), lr=1e-4)
    made.train()

    def bare() -> None:
        for start in range(0, len(names), 32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(made(inputs[start : start + 32]), torch.from_numpy(labels[start : start + 32])).backward()
            optimizer.step()

    of_bare = min(seconds(bare) for _ in range(2))
    ours, theirs = len(names) / min(timed), len(names) / of_bare
    return f"LoRA at ViT-B/32, {len(names)} samples: {ours:.1f} samples/s, bare loop {theirs:.1f}: {ours / theirs:.0%}"


def parts(size: str, rounds: int = 5) -> str:
    """CPU seconds of a batch of 64 in parts and whole, in turns: the median ratio of neighbours."""
    model = loading.load(Source(MODULE, checkpoint(Path(size), size)))
    side = model.pixels(Image.new("RGB", (64, 64))).shape[-1]
    batch = loading.Batch(["x"] * 64, [True] * 64, np.random.default_rng(0).integers(0, 256, (64, 3, side, side), np.uint8))
    took: dict[int, list[float]] = {loading.CACHED: [], 2**40: []}
    for _ in range(rounds + 1):
        for limit, times in took.items():
            loading.CACHED, begun = limit, time.process_time()
            assert len([*model.vectors([batch], Microbatching())]) == 1
            times.append(time.process_time() - begun)
    small, whole = (times[1:] for times in took.values())
    loading.CACHED = next(iter(took))
    ratio = median(one / other for one, other in zip(whole, small, strict=True))
    each = f"{median(small) / 64 * 1e3:.0f} ms of a core an image, whole {median(whole) / 64 * 1e3:.0f}"
    return f"batch of 64 in {len(model.pieces(batch.pixels))} parts at {size}: {each}: {ratio:.0%}"


def kept(size: str, rounds: int = 3) -> str:
    """CPU seconds of batches in fresh processes that keep what they free and that do not, in turns: the median ratio of neighbours."""
    folder = checkpoint(Path(size), size)
    took: dict[str, list[float]] = {"yes": [], "no": []}
    for _ in range(rounds):
        for keeps, times in took.items():
            command = [sys.executable, "-m", "benchmarks.contrastive", "--keeps", keeps, folder]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
            said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            times.append(float(said))
    with_, without = took.values()
    ratio = median(other / one for one, other in zip(with_, without, strict=True))
    each = f"{median(with_) / 128 * 1e3:.0f} ms of a core an image, given back {median(without) / 128 * 1e3:.0f}"
    return f"freed memory kept at {size}: {each}: {ratio:.0%}"


def batches(keeps: bool, folder: str) -> float:
    """CPU seconds of two batches of 64, after a part of one."""
    if keeps:
        process.keep_memory()
    model = loading.load(Source(MODULE, folder))
    side = model.pixels(Image.new("RGB", (64, 64))).shape[-1]
    batch = loading.Batch(["x"] * 64, [True] * 64, np.random.default_rng(0).integers(0, 256, (64, 3, side, side), np.uint8))
    first = loading.Batch(["x"], [True], batch.pixels[:1])
    assert len([*model.vectors([first], Microbatching())]) == 1
    begun = time.process_time()
    assert len([*model.vectors([batch] * 2, Microbatching())]) == 2
    return time.process_time() - begun


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--only-parts", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keeps", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keeps:
        print(batches(given.keeps[0] == "yes", given.keeps[1]))
        return
    if given.child:
        print(child(given.child))
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        if not given.only_parts:
            for line in probe(given.images):
                print(line, flush=True)
            print(lora(400), flush=True)
            print(memory(given.many), flush=True)
        for size in ("b32", "b16"):
            print(parts(size), flush=True)
            print(kept(size), flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
