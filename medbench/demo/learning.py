"""How mini models are trained: reproducibly, on one thread, Muon for the matrices inside, AdamW for the rest."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from medbench.jobs.progress import track

OUTER = ("embed", "lm_head", "projection")
"""In the names of matrices that Muon is not made for: they map words, places or pixels to vectors, or vectors into the shared space."""
MATRIX_RATE = 3.0
"""Muon's learning rate, in units of AdamW's."""


class PretrainReport(NamedTuple):
    """What a pretraining did: the mean loss of its first and last twentieth, its steps, its wall time [s]."""

    loss_first: float
    loss_last: float
    steps: int
    seconds: float


def report(losses: list[float], started: float) -> PretrainReport:
    """From the losses of the steps, and `time.perf_counter()` at the start."""
    share = max(1, len(losses) // 20)
    return PretrainReport(float(np.mean(losses[:share])), float(np.mean(losses[-share:])), len(losses), time.perf_counter() - started)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a seeded generator; the caller's settings come back afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


def train(parts: Iterable[nn.Module], loss_of: Callable[[], torch.Tensor], steps: int, rate: float) -> list[float]:
    """The losses of `steps` steps over the parameters of `parts`: warm-up over a tenth of them, then half a cosine down.

    Muon halves the steps that a mini model needs.
    """
    named = [(name, value) for part in parts for name, value in part.named_parameters()]
    matrices = [value for name, value in named if value.ndim == 2 and not any(word in name for word in OUTER)]
    others = [value for _, value in named if not any(value is matrix for matrix in matrices)]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"), MATRIX_RATE * rate),
        (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.05, fused=True), rate),
    ]
    warmup, losses = max(1, steps // 10), []
    for step in track(range(steps), "pretrain, steps", steps):
        factor = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of()
        for optimizer, _ in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*matrices, *others], 1.0)
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()
        losses.append(float(loss.detach()))
    return losses
