"""Lettered questions: the letters of four orders of the options against one greedy answer of 32 tokens, CPU seconds of the small LLaVA.

`python -m benchmarks.letters`, about a minute. Both ask the same questions in the same process through `HubAnswerer`; images of 112 pixels
(49 tokens), questions of about 60 words with five options. `--size mini` asks the demo's model.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.random_llava import MODULE, checkpoint
from medbench.datasets.images import ImageRow, decode
from medbench.datasets.layouts.phantom import encode
from medbench.jobs.microbatching import Microbatching
from medbench.models import answering
from medbench.models.answering import Choices, Questions
from medbench.models.asking import Choosing
from medbench.models.checkpoint import Source

N, ORDERS, ROUNDS = 32, 4, 3
PUT = Choosing("{question}\n\n{options}\n\nAnswer with the option's letter from the given choices directly.", "", "as-is", ORDERS, 32)
STEM = "chest radiograph of the right lung shows a large nodule beside the heart and no effusion is seen in this image of the patient "
OPTIONS = ["a nodule in the right lung", "an effusion", "pneumothorax on the left side", "a large heart", "it is normal"]


def asked() -> Choices:
    """The questions, each with an image of its own."""
    rng = np.random.default_rng(0)
    images = {f"i{place}": encode(rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)).data for place in range(N)}
    rows = [[ImageRow(name, data, True) for name, data in images.items()]]
    questions = [f"{STEM * 3} {'very ' * (place % 5)}what is it?" for place in range(N)]
    texts = [[PUT.text(question, OPTIONS[turn:] + OPTIONS[:turn]) for turn in range(ORDERS)] for question in questions]
    put = Questions([f"sample {place}" for place in range(N)], [of[0] for of in texts], list(images), lambda ids, size: rows, decode, 32)
    return Choices(put, texts, [len(OPTIONS)] * N)


def seconds(work: Callable[[], Any]) -> float:
    """CPU time, all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    """Print the two times, as the median of some rounds in turn, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as place:
        answerer = answering.load(Source(MODULE, checkpoint(Path(place) / "model", args.size), None, 16))
        answerer.model.model.generation_config.eos_token_id = None  # type: ignore[attr-defined]  # every answer takes all 32 tokens
        choices, whole = asked(), Microbatching()
        assert next(iter(answerer.letters(choices, [], whole)))
        letters, answers = [], []
        for _ in range(ROUNDS):
            letters.append(seconds(lambda: list(answerer.letters(choices, [], whole))) / N)
            answers.append(seconds(lambda: list(answerer.answers(choices.questions, [], whole))) / N)
    one, other = float(np.median(letters)), float(np.median(answers))
    print(f"{args.size}: letters of {ORDERS} orders {one * 1000:.1f} ms, an answer of 32 tokens {other * 1000:.1f} ms, {one / other:.2f}x")


if __name__ == "__main__":
    main()
