"""What a generative model's batches gain on a GPU, with random weights of a real model's size: `python -m benchmarks.gpu`.

Some minutes on one GPU of 24 GB or more; `--size small` anywhere. Needs torch, transformers and Pillow; no polars, no pyarrow. Each line is
a ratio of one run, the least seconds of three rounds in turn:
- questions about one image over its keys and values, against whole prompts in the same batches, at several questions an image;
- letters of four orders of the options, several questions in a batch against one;
- steps of LoRA with logits from the first answer on, against the library's loss, which makes them for every token: seconds and peak memory.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.random_llava import MODULE, SIZES, checkpoint
from medbench.adapt import tuned
from medbench.jobs.microbatching import Microbatching
from medbench.models import generative_base, shared_prefix
from medbench.models.answering import Choices, Questions
from medbench.models.checkpoint import Source
from medbench.models.generative_base import Generative
from medbench.models.hub_answerer import HubAnswerer

ROUNDS, ORDERS, OPTIONS, STEPS = 3, 4, 5, 2
LINES = ("shared", "letters", "lora")


class Row(NamedTuple):
    """An image as tables hold it."""

    image_id: str
    image: bytes
    evaluated: bool = True


def questions(n: int, each: int, side: int, n_tokens: int) -> Questions:
    """`n` questions of about twenty words, `each` about one image of noise."""
    rng = np.random.default_rng(0)
    images = {
        f"i{place}": Row(f"i{place}", _encoded(rng.integers(0, 255, (side, side, 3), dtype=np.uint8))) for place in range(-(-n // each))
    }
    texts = [f"{'is the left lung of this patient ' * 3}larger than the right one in picture {place}?" for place in range(n)]
    shown = [f"i{place // each}" for place in range(n)]
    look = lambda data: Image.open(io.BytesIO(data)).convert("RGB")  # noqa: E731
    return Questions([f"sample {place}" for place in range(n)], texts, shown, lambda names, size: [list(images.values())], look, n_tokens)


def _encoded(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def timed(work: Callable[[], Iterator[dict[int, Any]]]) -> tuple[float, dict[int, Any]]:
    """Seconds, and all that was given."""
    begun, found = time.monotonic(), dict[int, Any]()
    for group in work():
        found |= group
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - begun, found


def shared(model: Generative, batch: int, put: Questions, each: int) -> str:
    """A line: shared keys and values against whole prompts."""
    plain, took, said = shared_prefix.prompts, {True: [], False: []}, {}  # type: dict[bool, list[float]], dict[bool, Any]
    for _ in range(ROUNDS):
        for is_shared in (True, False):
            shared_prefix.prompts = plain if is_shared else lambda model, queries, n_tokens: model.inputs(queries, n_tokens)
            seconds, said[is_shared] = timed(lambda: HubAnswerer(model, batch).answers(put, (), Microbatching()))
            took[is_shared].append(seconds)
    shared_prefix.prompts = plain
    if model.model.dtype == torch.float32 and said[True] != said[False]:
        raise SystemExit("shared keys and values answer otherwise than whole prompts")
    n, own, whole = len(put.texts), min(took[True]), min(took[False])
    other = sum(said[True][place] != said[False][place] for place in range(n)) / n
    rates = f"{n / own:.1f} questions/s, whole prompts {n / whole:.1f}: {whole / own:.2f}x"
    return f"{each} questions an image, {put.max_new_tokens} tokens an answer, batches of {batch}: {rates}; {other:.1%} of answers differ"


def letters(model: Generative, batch: int, put: Questions) -> str:
    """A line: several questions in a batch against one."""
    options = [[f"{'ABCDE'[place]}. finding {(turn + place) % OPTIONS}" for place in range(OPTIONS)] for turn in range(ORDERS)]
    texts = [["\n".join([text, *order]) for order in options] for text in put.texts]
    choices = Choices(put._replace(texts=[of[0] for of in texts]), texts, [OPTIONS] * len(texts))
    took: dict[int, list[float]] = {batch: [], ORDERS: []}
    for _ in range(ROUNDS):
        for size, seconds in took.items():
            seconds.append(timed(lambda: HubAnswerer(model, size).letters(choices, (), Microbatching()))[0])  # noqa: B023 - called at once
    n, many, one = len(texts), min(took[batch]), min(took[ORDERS])
    return (
        f"letters of {ORDERS} orders: {n / many:.1f} questions/s in batches of {batch} prompts, {n / one:.1f} one by one: {one / many:.2f}x"
    )


def lora(model: Generative, put: Questions) -> str:
    """A line: steps of LoRA, logits from the first answer on against logits of every token. The model keeps its adapters."""
    images = {row.image_id: row.image for rows in put.images([], 1) for row in rows}
    queries = [put.query(place, images[shown]) for place, shown in enumerate(put.image_ids)]
    inputs = model.train_batch(queries, ["a shadow in the left lung"] * len(queries))
    tuned.build(model, 16, 32, 0.05)
    model.model.train()
    optimizer = torch.optim.AdamW(list(tuned.trainable(model).values()), lr=1e-4, fused=True)

    def part() -> torch.Tensor:
        return model.loss(inputs)

    def whole() -> torch.Tensor:
        with model.precision():
            found: torch.Tensor = model.model(**model.placed(inputs)).loss
        return found

    def steps(loss: Callable[[], torch.Tensor]) -> Iterator[dict[int, Any]]:
        for place in range(STEPS):
            optimizer.zero_grad()
            found = loss()
            found.backward()
            optimizer.step()
            yield {place: float(found.detach())}

    took: dict[Callable[[], torch.Tensor], list[tuple[float, float]]] = {part: [], whole: []}
    for _ in range(ROUNDS):
        for loss, seen in took.items():
            peak(begin=True)
            seen.append((timed(lambda: steps(loss))[0], peak()))  # noqa: B023 - called at once
    (own, memory), (other, more) = (map(min, zip(*took[loss], strict=True)) for loss in (part, whole))
    n, width = STEPS * len(queries), model.model.config.get_text_config().vocab_size
    return (
        f"LoRA, batches of {len(queries)}, {inputs['input_ids'].shape[1]} tokens, {width} words: {n / own:.1f} samples/s, {memory:.2f} GB; "
        f"logits of every token {n / other:.1f}, {more:.2f} GB: {other / own:.2f}x, {memory / more:.2f} of the memory"
    )


def peak(begin: bool = False) -> float:
    """Most memory since it was begun [GB]: the GPU's, or the process's by Linux' own account."""
    if torch.cuda.is_available():
        if begin:
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated() / 1e9)
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    return next(float(line.split()[1]) / 1e6 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Prints a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=LINES, default=LINES)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory(prefix="medbench-gpu-") as place:
        model = generative_base.load(Source(MODULE, checkpoint(Path(place) / given.size, given.size), None, given.batch))
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        print(f"{given.size} LLaVA, {model.model.dtype}, {name}, torch {torch.__version__}", flush=True)
        side = SIZES[given.size]["side"]
        timed(lambda: HubAnswerer(model, given.batch).answers(questions(given.batch, 4, side, 4), (), Microbatching()))  # warm
        for each, n_tokens in ((1, 5), (2, 5), (11, 5), (11, 32)) if "shared" in given.only else ():
            print(shared(model, given.batch, questions(given.questions, each, side, n_tokens), each), flush=True)
        if "letters" in given.only:
            print(letters(model, given.batch, questions(given.questions, 1, side, 5)), flush=True)
        if "lora" in given.only:
            print(lora(model, questions(given.batch, 2, side, 5)), flush=True)


if __name__ == "__main__":
    main()
