"""What a task asks, and what an adaptation to questions is given. No torch, no polars."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

    from medbench.jobs.partial import Work
    from medbench.models.asking import Asking
    from medbench.models.checkpoint import Source
    from medbench.models.prefetch import Row

IN_MEMORY = 2**30
"""Bytes of decoded images that a training keeps."""
BYTES_A_PIXEL = 4
"""Of an RGB image, as Pillow holds it."""


class Asked(NamedTuple):
    """One split of a question-answering data set, in the order of its table."""

    sample_ids: list[str]
    questions: list[str]
    answers: list[str]
    image_ids: list[str]


class AskedChoices(NamedTuple):
    """One split of lettered questions, in the order of its table."""

    sample_ids: list[str]
    group_ids: list[str]
    questions: list[str]
    options: list[list[str]]
    answers: list[str]  # letters
    is_positional: list[bool]
    image_ids: list[list[str]]


class Said(NamedTuple):
    """What a model says to one question. `letters`: of each order, log-probabilities and mass; None where it tells none."""

    shifts: list[int]
    letters: list[tuple[list[float], float]] | None
    text: str
    finish_reason: str = "stop"
    n_tokens: int = 1


class QuestionJob(NamedTuple):
    """All that an adaptation may look at. Of the test split it gets the ids, to prove that none of them was used."""

    cell: str
    train: Asked
    val: Asked
    test_ids: frozenset[str]
    recipe: Mapping[str, Any]
    seed: int
    asking: "Asking"
    images: "Callable[[Sequence[str], int], Iterable[Sequence[Row]]]"  # image ids, batch size -> batches, each image once
    decode: "Callable[[bytes], Image.Image]"
    source: "Source"
    work: "Work"  # this job's own folder; what lies there survives a kill


class Images:
    """Images of a split, read by id in random order, many times: decoded once while `IN_MEMORY` holds them, the others from one file."""

    def __init__(self, path: Path, batches: "Iterable[Sequence[Row]]", decode: "Callable[[bytes], Image.Image]") -> None:
        """Writes `path` from batches of rows."""
        self._path, self._decode, self._spans = path, decode, dict[str, tuple[int, int]]()
        self._decoded, self._free = dict[str, "Image.Image"](), IN_MEMORY
        with path.open("wb") as file:
            for rows in batches:
                for row in rows:
                    self._spans[row.image_id] = (file.tell(), len(row.image))
                    file.write(row.image)

    def __getitem__(self, image_id: str) -> "Image.Image":
        if image_id not in self._decoded:
            image = self._read(image_id)
            size = BYTES_A_PIXEL * image.width * image.height
            if size > self._free:
                return image
            self._decoded[image_id], self._free = image, self._free - size
        return self._decoded[image_id]

    def _read(self, image_id: str) -> "Image.Image":
        from medbench.models.answering import decoded  # with PIL, which tables need not

        start, length = self._spans[image_id]
        with self._path.open("rb") as file:
            file.seek(start)
            return decoded(image_id, file.read(length), self._decode)
