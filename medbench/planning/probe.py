"""How fast this machine is, now: a process that measures and prints what it found. Many at once share the cores as jobs do.

It imports what jobs import, then encodes a few batches with the demo's mini CLIP and multiplies matrices, on one thread; where a GPU is
visible, it multiplies there, too.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from medbench.errors import MedbenchError

TRACKED = False  # a look ahead is no part of a result

LONGEST = 30.0
"""Of a probe [s]."""
PROCESSES = 8
"""At once, at most."""
BATCH, BATCHES, SIDE = 32, 6, 1024


class Speed(NamedTuple):
    """Seconds of one process among as many as there are cores: to start with what jobs without a model import, to import what models need
    besides, to encode one image with the mini CLIP; float32 operations a second of one thread; those of a GPU in bfloat16, if there is one.
    """

    start: float
    imports: float
    image: float
    flops: float
    gpu_flops: float | None
    processes: int


def measure(cores: int) -> Speed:
    """The mean of several processes at once. Twice where there is time: the first look reads libraries from the disk.

    Raises MedbenchError where none of them ends in time.
    """
    begun = time.monotonic()
    first = _look(cores, LONGEST)
    took = time.monotonic() - begun
    if took > LONGEST / 2.5:
        return first
    return _look(cores, LONGEST - took)


def _look(cores: int, seconds: float) -> Speed:
    n, end = max(1, min(cores, PROCESSES)), time.monotonic() + seconds
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}}
    command = [sys.executable, "-m", "medbench.planning.probe"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(n)]
    found = []
    try:
        for process in running:
            said, _ = process.communicate(timeout=max(end - time.monotonic(), 0.1))
            found.append(json.loads(said))
    except (subprocess.TimeoutExpired, ValueError):
        raise MedbenchError(
            "plan", f"the probe did not end within {seconds:.0f} s", "give --no-probe, or plan when it is less busy"
        ) from None
    finally:
        for process in running:
            process.kill()
            process.wait()
    means = {name: sum(one[name] for one in found) / n for name in ("start", "imports", "image", "flops")}
    gpu = [one["gpu_flops"] for one in found if one["gpu_flops"]]
    return Speed(**means, gpu_flops=sum(gpu) if gpu else None, processes=n)


def main() -> None:
    """What one process measures, as JSON."""
    from medbench.jobs import lazy, records

    began = records.process_start()
    import medbench.stages.interval  # noqa: F401 (what jobs without a model import)

    start = time.time() - began
    begun = time.perf_counter()
    lazy.without_unused()
    import torch
    import transformers
    from transformers import CLIPModel

    from medbench.demo.shipped import FOLDER

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    model = CLIPModel.from_pretrained(FOLDER / "mini-clip", dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    imports = time.perf_counter() - begun
    pixels = torch.zeros(BATCH, 3, model.config.vision_config.image_size, model.config.vision_config.image_size)
    with torch.inference_mode():
        model.get_image_features(pixel_values=pixels)
        begun = time.perf_counter()
        for _ in range(BATCHES):
            model.get_image_features(pixel_values=pixels)
    image = (time.perf_counter() - begun) / (BATCH * BATCHES)
    found = {"start": start, "imports": imports, "image": image, "flops": _rate(torch.rand(SIDE, SIDE), 3), "gpu_flops": None}
    if torch.cuda.is_available():
        found["gpu_flops"] = _rate(torch.rand(8 * SIDE, 8 * SIDE, dtype=torch.bfloat16, device="cuda"), 20)
    print(json.dumps(found))


def _rate(matrix: "torch.Tensor", times: int) -> float:  # type: ignore[name-defined]  # noqa: F821
    """Operations a second of multiplying a square matrix with itself."""
    import torch

    def wait() -> None:
        if matrix.is_cuda:
            torch.cuda.synchronize()

    matrix @ matrix
    wait()
    begun = time.perf_counter()
    for _ in range(times):
        matrix @ matrix
    wait()
    return times * 2 * len(matrix) ** 3 / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
