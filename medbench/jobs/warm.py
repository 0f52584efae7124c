"""One process that has imported medbench with its libraries, from which the jobs of a start are forked.

Importing them takes several times as long as a mini model computes. So where jobs run on the CPUs of this machine, a start of
Snakemake keeps one process that imports them once. The process of a job hands it its command line, environment, working
directory and open files, and waits for the exit code; what is forked then is the job, and goes on as if it had been started so.

Whoever dies takes the job along: when its process goes, the job sees its connection close; when Snakemake goes, the kernel ends the
warm process, and with that its jobs. Everywhere else (by hand, on a cluster, with GPUs, whose drivers do not outlive a fork, with
more than one thread a job, off Linux) a process imports for itself; its results are the same.

The process of a job imports this module alone: what one side needs is imported there.
"""

import gc
import marshal
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from medbench.jobs import process

TRACKED = False  # decides no result

VERB = "warm"
STAGES = frozenset(("pretrain", "embed", "prompts", "adapt", "predict", "validate"))
"""Those that import torch."""
ALONE = frozenset(("fetch", "prepare"))
"""Stages that come first: they would wait for the imports, and take longer than their own."""
VARIABLE = "MEDBENCH_WARM"  # the address, for jobs
_IMPORTS = (
    "torch", "peft", "transformers.image_processing_utils", "transformers.generation", "transformers.models.auto",
    "sklearn.linear_model", "sklearn.model_selection",
)  # fmt: skip
_LONGEST = 1 << 20  # of what a job hands over [bytes]
THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}  # read at import; a fork takes no threads along
_KILLED = 137  # as a shell has it for SIGKILL
_taken: list[float] = []  # in a fork: when its job's process began [s since the epoch]


def start() -> None:
    """Called once jobs are sure to run here: start the process, as a child that dies with this one, and let later jobs know."""
    if sys.platform != "linux":
        return
    import secrets
    import subprocess
    from pathlib import Path

    from medbench.jobs.devices import VISIBLE

    name = f"medbench-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")  # in no folder, so nothing is left of it
        listener.listen()
        command = [sys.executable, "-m", "medbench", VERB, str(listener.fileno()), str(os.getpid())]
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))  # as for jobs
        environment = {**os.environ, **THREADS, "PYTHONPATH": path, VISIBLE: ""}
        subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
    os.environ[VARIABLE] = name


def began() -> float | None:
    """In a fork, when the process began that handed its job over [s since the epoch]; None in any other."""
    return _taken[0] if _taken else None


def hand_over() -> int | None:
    """The exit code of this process's job, once a fork of the warm process has done it; None where it must do it itself."""
    now, name = time.time(), os.environ.get(VARIABLE)
    if not name or ALONE & {*sys.argv[1:2]} or any(os.environ.get(key) != value for key, value in THREADS.items()):
        return None
    process.die_with_parent()
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork gets it too, and says what there is to say
    request = [sys.argv, os.getcwd(), dict(os.environ), now, interrupt is signal.SIG_IGN]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(f"\0{name}")
            if _owner(connection) != os.getuid():
                raise PermissionError(name)
            socket.send_fds(connection, [marshal.dumps(request)], [0, 1, 2])
            answer = connection.recv(1)
        except OSError:  # it is gone without having taken the job, or the environment is too long
            signal.signal(signal.SIGINT, interrupt)
            return None
    if answer:
        return answer[0]
    print("ERROR: the process of this job was killed; where memory is short, run fewer jobs at a time", file=sys.stderr)
    return _KILLED


def finish(main: Callable[[], int], connection: socket.socket) -> int:
    """In a fork: the job, and its exit code sent to whom it was taken from, once all that it says is written."""
    import traceback

    try:
        code = main()
    except BaseException:  # what Python does at the end of a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([code]))
    return code


def serve(listener: socket.socket, parent: int, prepare: Callable[[], None]) -> socket.socket:
    """Import, what `prepare` imports too, then fork a job for each connection, until Snakemake, the parent, dies.

    Importing starts no thread that a fork would miss: polars makes its workers at its first work, jemalloc knows of forks.
    Returns in the forks only: where the exit code is sent to.
    """
    import importlib

    process.die_with_parent(parent)
    own = os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the jobs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # jobs answer for themselves
    from medbench.jobs import lazy

    lazy.without_unused()
    with lazy.bitsandbytes_where_used():
        for name in _IMPORTS:
            importlib.import_module(name)
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("")  # makes its table, which stays
    importlib.import_module("torch").empty(1, device="meta").normal_()  # as every model is made first: torch imports sympy for it
    prepare()
    gc.freeze()  # what is shared with the forks stays shared
    while True:
        connection = None
        try:
            connection, _ = listener.accept()
            if _owner(connection) == os.getuid() and not os.fork():
                break
        except OSError:  # too many open files or processes: jobs that run go on, this one runs alone
            time.sleep(1)
        if connection:
            connection.close()
    listener.close()
    process.die_with_parent(own)
    _become(connection)
    return connection


def _owner(connection: socket.socket) -> int:
    """The user at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # process, user, group
    return int.from_bytes(found[4:8], sys.byteorder)


def _become(connection: socket.socket) -> None:
    """Take the place of the process at the other end."""
    import threading

    request, files, _, _ = socket.recv_fds(connection, _LONGEST, 3)
    if len(files) < 3:  # it is gone
        os._exit(1)
    sys.argv, folder, environment, since, deaf = marshal.loads(request)
    signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    _taken.append(since)
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()


def _die_with(connection: socket.socket) -> None:
    connection.recv(1)  # nothing is ever sent: it closed
    os.kill(os.getpid(), signal.SIGKILL)
