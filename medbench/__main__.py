"""`python -m medbench`."""

import contextlib
import gc
import os
import socket
import sys

from medbench.jobs import process, warm


def prepare() -> None:
    """Import all stages and tasks, and what they import when they do their work."""
    from medbench import stages, tasks
    from medbench.metrics import mcq_published, vqa  # noqa: F401
    from medbench.metrics.evaluate_modules.vqa_strict import choices  # noqa: F401

    for name in stages.STAGES:
        stages.get(name)
    for name in tasks.names():
        tasks.get(name)


if os.environ.get("OMP_NUM_THREADS"):  # of a job: polars would take all cores of the machine
    os.environ.setdefault("POLARS_MAX_THREADS", str(process.threads()))
gc.set_threshold(100_000, 50, 50)  # imports make objects that stay: looking through all of them again and again is a seventh of a start
waits = None
if sys.argv[1:2] == [warm.VERB]:
    waits = warm.serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]), prepare)
elif (done := warm.hand_over()) is not None:
    os._exit(done)

from medbench.cli import main  # noqa: E402 (a process that has handed its job over needs none of it)

code = warm.finish(main, waits) if waits else main()
with contextlib.suppress(OSError):  # the disk of the log is full, and the exit code says it
    sys.stdout.flush()
    sys.stderr.flush()
os._exit(code)  # all files are closed; taking torch apart object by object would take as long as a third of its start
