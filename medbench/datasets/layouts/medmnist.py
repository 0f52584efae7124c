"""Layout `medmnist`: one `{flag}[_{size}].npz` of MedMNIST, single-label 2-D sets at 28, 64, 128 or 224 pixels, streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from medbench.datasets.layouts import DiagnosisItem, Source, Strict, one_of
from medbench.datasets.reading import npz_array, npz_images, png, root

FLAGS = ("pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist")
SIZES = ("28", "64", "128", "224")
SPLITS = ("train", "val", "test")


class Options(Strict):
    """`flag`: the set's name there; `size` in pixels."""

    flag: Annotated[str, one_of(FLAGS)]
    size: Annotated[str, one_of(SIZES)] = "224"


def index_files(options: Options, source: Source) -> list[Path]:
    """The file."""
    name = f"{options.flag}.npz" if options.size == "28" else f"{options.flag}_{options.size}.npz"
    return [root(source, name) / name]


def items(options: Options, source: Source) -> Iterator[DiagnosisItem]:
    """One item an image; each is its own group, since the files name no patient."""
    (path,) = index_files(options, source)
    for split in SPLITS:
        labels = npz_array(path, f"{split}_labels", path.name, source)
        if labels.ndim != 2 or labels.shape[1] != 1:
            raise source.error(path.name, f"{split}_labels has the shape {labels.shape}", "only sets with one label an image can be used")
        count = 0
        for number, image in enumerate(npz_images(path, f"{split}_images", source)):
            place, count = f"{path.name} {split} image {number}", number + 1
            label = int(labels[number, 0]) if number < len(labels) else -1
            if not 0 <= label < len(source.classes):
                raise source.error(place, f"label {label}, but there are {len(source.classes)} classes", "fix `classes` of the entry")
            name = f"{split}-{number:06d}"
            yield DiagnosisItem(name, name, split, png(image), place, source.classes[label])
        if count != len(labels):
            raise source.error(path.name, f"{split} has {len(labels)} labels for {count} images", "download it again")
