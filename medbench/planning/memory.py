"""Which models fit the GPUs that are visible: to be asked, and to be adapted."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from medbench.cells import Cell
from medbench.config import Config, Lora, sources
from medbench.config.needs import gpu_mb
from medbench.planning.effort import Recorded

TRACKED = False  # a look ahead is no part of a result


class Memory(NamedTuple):
    """Of one model, on each of its GPUs [MB]: to be asked, and by LoRA (None: not known, or not in the run); whether both fit."""

    model: str
    gpus: int
    asked: float | None
    adapted: float | None
    source: str
    """finished jobs | rule."""
    fits: bool | None
    """None where no GPU is visible, or a size is not known."""


def of_models(config: Config, grid: Iterable[Cell], records: Sequence[Recorded], visible: Sequence[int | None]) -> list[Memory]:
    """Of the run's models with weights, the demo's small ones left out. What finished jobs took stands above the rule."""
    lora = {cell.model for cell in grid if isinstance(config.modes[cell.mode], Lora)}
    known = [size for size in visible if size is not None]
    found = []
    for name in sources.models(config):
        entry = config.models[name]
        if entry.pretrain is not None or entry.kind not in ("contrastive", "generative"):
            continue
        asked, adapted = gpu_mb(entry, False), gpu_mb(entry, True) if name in lora else None
        peaks = {
            is_lora: [one.peak_gpu_mb for one in records if one.peak_gpu_mb and name in one.names and (one.stage == "adapt") == is_lora]
            for is_lora in (False, True)
        }
        asked, adapted = max(peaks[False], default=asked), max(peaks[True], default=adapted) if name in lora else None
        each = [size / entry.gpus for size in (asked, adapted) if size is not None]
        fits = max(each) < max(known) and len(visible) >= entry.gpus if each and known else None
        one, other = (None if size is None else size / entry.gpus for size in (asked, adapted))
        found.append(Memory(name, entry.gpus, one, other, "finished jobs" if any(peaks.values()) else "rule", fits))
    return found
