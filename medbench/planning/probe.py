"""How fast this machine is, now: a process that measures and prints what it found. Many at once share the cores as jobs do.

It imports what jobs import, then sends a few batches through an encoder of the size of the demo's mini CLIP and multiplies matrices, on one
thread; where a GPU is visible, it multiplies there, too.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

TRACKED = False  # a look ahead is no part of a result

LONGEST = 30.0
"""Of a probe [s]."""
PROCESSES = 8
"""At once, at most."""
BATCH, BATCHES, SIDE = 32, 6, 1024
WIDTH, HEADS, LAYERS, TOKENS = 64, 2, 2, 65  # of the mini CLIP's image tower


class Speed(NamedTuple):
    """Seconds of one process among as many as there are cores: to start with what jobs without a model import, to import torch, to send one
    image through the small encoder; float32 operations a second of one thread; those of the first GPU in bfloat16, if there is one.
    """

    start: float
    torch: float
    image: float
    flops: float
    gpu_flops: float | None
    processes: int


REFERENCE = Speed(start=0.25, torch=1.5, image=0.00017, flops=1.5e11, gpu_flops=None, processes=2)
"""Of the machine on which the costs of `medbench.planning.effort` were taken."""


def measure(cores: int) -> Speed | None:
    """The mean of several processes at once. Twice where there is time: the first look reads libraries from the disk.

    What a busy machine does not measure in time is taken to be as much slower than the reference as its start; None where even that is not
    measured.
    """
    begun = time.monotonic()
    first = look(cores, LONGEST)
    took = time.monotonic() - begun
    return first if took > LONGEST / 2.5 else look(cores, LONGEST - took) or first


def look(cores: int, seconds: float) -> Speed | None:
    """The mean of several processes at once, within so many seconds; None where nothing is measured in them."""
    n, end = max(1, min(cores, PROCESSES)), time.monotonic() + seconds
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}}
    command = [sys.executable, "-m", "medbench.planning.probe"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(n)]
    found = [_said(process, end) for process in running]
    means = {name: sum(values) / len(values) for name in Speed._fields if (values := [one[name] for one in found if name in one])}
    if "start" not in means:
        return None
    slower = means["start"] / REFERENCE.start
    for name in ("torch", "image"):
        means.setdefault(name, getattr(REFERENCE, name) * slower)
    means.setdefault("flops", REFERENCE.flops / slower)
    gpu = [one["gpu_flops"] for one in found if "gpu_flops" in one]  # all on the first one: their sum is what it does
    return Speed(means["start"], means["torch"], means["image"], means["flops"], sum(gpu) if gpu else None, n)


def _said(process: "subprocess.Popen[str]", end: float) -> dict[str, float]:
    """What a process has printed until then: a line a measure."""
    try:
        said, _ = process.communicate(timeout=max(end - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    found: dict[str, float] = {}
    for line in said.split("\n")[:-1]:
        found |= json.loads(line)
    return found


def main() -> None:
    """What one process measures, each with a line as soon as it is known."""
    from medbench.jobs import records

    began = records.process_start()
    import medbench.stages.interval  # noqa: F401 (what jobs without a model import)

    _say("start", time.time() - began)
    begun = time.perf_counter()
    import torch

    _say("torch", time.perf_counter() - begun)
    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
    model, pixels = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval(), torch.rand(BATCH, TOKENS, WIDTH)
    with torch.inference_mode():
        model(pixels)
        begun = time.perf_counter()
        for _ in range(BATCHES):
            model(pixels)
    _say("image", (time.perf_counter() - begun) / (BATCH * BATCHES))
    _say("flops", _rate(torch.rand(SIDE, SIDE), 3))
    if torch.cuda.is_available():
        _say("gpu_flops", _rate(torch.rand(8 * SIDE, 8 * SIDE, dtype=torch.bfloat16, device="cuda"), 20))


def _say(name: str, value: float) -> None:
    print(json.dumps({name: value}), flush=True)


def _rate(matrix: "torch.Tensor", times: int) -> float:
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
