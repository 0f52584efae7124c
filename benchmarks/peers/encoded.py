"""One side of the rows on images, a process of its own, in a clone: `python -m benchmarks.peers.encoded SIDE SIZE FOLDER`.

SIDE is medbench or clip-benchmark, SIZE tiny or b32. Both load one checkpoint of open_clip and read the same encoded images: medbench
from its table, clip-benchmark from a folder of files by torchvision, in the main process. What is imported stands before the clock.
FOLDER gets `vectors.npz` (image ids, embeddings of unit length) and `phases.json`:
- encode: from the loaded model and encoded images to embeddings on the disk, of all splits;
- probe: from these to a fitted probe and its predictions of test;
- all: both, loading the model, and zero-shot classification from texts and images.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.clock import Clock

DATASETS = {"tiny": "peers-images", "b32": "peers-fewer-images"}
SPLITS = ("train", "val", "test")
BATCH = 64


def prompts(names: list[str]) -> dict[str, list[str]]:
    """Of every class."""
    return {name: [f"a photo of {name}"] for name in names}


def medbench(size: str, folder: Path) -> None:
    """The stages of a probe's and an off-the-shelf cell, in one process."""
    import shutil

    import polars as pl

    from medbench import paths
    from medbench.adapt import probe as _probe  # noqa: F401 (imported beside the clock)
    from medbench.jobs import process
    from medbench.models import loading
    from medbench.models.checkpoint import Source
    from medbench.models.contrastive import open_clip as _open_clip  # noqa: F401
    from medbench.predict import probe, zero_shot  # noqa: F401
    from medbench.stages import adapt, embed, predict
    from medbench.stages import prompts as stage

    process.keep_memory()  # as a job does
    for part in ("embeddings", "prompts", "adapters", "predictions"):
        shutil.rmtree(f"results/{part}", ignore_errors=True)
    dataset, clock = DATASETS[size], Clock(folder / "phases.json")
    classes = classes_of(dataset)
    source = Source("medbench.models.contrastive.open_clip", size)._asdict()
    load, write = loading.load, embed._write

    def loaded(*given: Any, **more: Any) -> Any:
        model = load(*given, **more)
        clock.start("encode")
        return model

    def written(*given: Any) -> int:
        count = write(*given)
        clock.stop("encode")
        return count

    clock.start("all")
    embed.loading.load, embed._write = loaded, written
    embed.STAGE.execute(embed.Params(source, BATCH), dataset, "m")
    embed.loading.load, embed._write = load, write
    of_class = {name: tuple(texts) for name, texts in prompts(list(classes)).items()}
    stage.run(stage.Params(source, classes, {"main": of_class}), dataset, "m")
    predict.STAGE.execute(predict.Params("medbench.predict.zero_shot", "diagnosis", None, classes), dataset, "m", "ots")
    clock.start("probe")
    recipe = {"c_values": [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], "n_splits": 5, "max_iter": 1000}
    adapt.STAGE.execute(adapt.Params("medbench.adapt.probe", "diagnosis", None, recipe, classes, 0), dataset, "m", "lp")
    predict.STAGE.execute(predict.Params("medbench.predict.probe", "diagnosis", None, classes, adapted=True), dataset, "m", "lp")
    clock.stop("probe")
    clock.stop("all")
    table = pl.read_parquet(paths.embeddings(dataset, "m"), columns=["image_id", "features"])
    keep(folder, table["image_id"].to_list(), np.array(table["features"].to_list()))


def clip_benchmark(size: str, folder: Path) -> None:
    """`linear_probe` with its sweep on the validation split and `zeroshot_classification`, at the command line's defaults."""
    from clip_benchmark.metrics import linear_probe, zeroshot_classification
    from clip_benchmark.models.open_clip import load_open_clip
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    clock, find, save = Clock(folder / "phases.json"), linear_probe.Featurizer, torch.save

    def featurizer(*given: Any) -> Any:
        clock.start("encode")
        return find(*given)

    def saved(what: Any, file: str) -> None:
        save(what, file)
        if Path(file).name == "targets_test.pt":
            clock.stop("encode")
            clock.start("probe")

    linear_probe.Featurizer, torch.save = featurizer, saved
    clock.start("all")
    model, transform, tokenizer = load_open_clip(f"local-dir:{Path(size).resolve()}", None, device="cpu")
    model.eval()
    sets = {split: ImageFolder(Path("files") / DATASETS[size] / split, transform) for split in SPLITS}
    loaders = {split: DataLoader(sets[split], BATCH, shuffle=False, num_workers=0) for split in SPLITS}
    names = [name.replace("-", " ") for name in sets["test"].classes]
    linear_probe.evaluate(  # first, so that both sides encode with a model that has encoded nothing yet
        model, loaders["train"], loaders["test"], -1, BATCH, 0, 0.1, 10, "m", 0, str(folder / "features"), "cpu", loaders["val"], amp=False
    )
    clock.stop("probe")
    zeroshot_classification.evaluate(model, loaders["test"], tokenizer, names, prompts(names), "cpu", amp=False)
    clock.stop("all")
    vectors = [torch.load(folder / "features" / "m" / f"features_{split}.pt") for split in SPLITS]
    keep(folder, [Path(file).stem for split in SPLITS for file, _ in sets[split].samples], torch.cat(vectors).numpy())


def classes_of(dataset: str) -> tuple[str, ...]:
    """Names of the classes, as the folders are called."""
    return tuple(path.name.replace("-", " ") for path in sorted((Path("files") / dataset / "train").iterdir()))


def keep(folder: Path, names: list[str], vectors: Any) -> None:
    """At unit length, in the order of the names."""
    order = np.argsort(names)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(folder / "vectors.npz", names=np.array(names)[order], vectors=unit[order])


if __name__ == "__main__":
    torch.set_num_threads(1)
    side, chosen, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    medbench(chosen, out) if side == "medbench" else clip_benchmark(chosen, out)
