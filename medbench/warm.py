"""One process that has imported torch and transformers, from which the model jobs of a start are forked.

Importing them takes several times as long as a mini model computes. So where jobs run on the CPUs of this machine, a start of
Snakemake keeps one process that imports them once. The process of a job hands it its command line, environment, working
directory and open files, and waits for the exit code; what is forked then is the job, and goes on as if it had been started so.

Whoever dies takes the job along: when its process goes, the job sees its connection close; when Snakemake goes, the kernel ends the
warm process, and with that its jobs. Everywhere else (by hand, on a cluster, with GPUs, whose drivers do not outlive a fork, with
more than one thread a job, off Linux) a process imports for itself; its results are the same.
"""

import gc
import importlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading

from medbench import runtime

VERB = "warm"
STAGES = frozenset(("pretrain", "embed", "prompts", "adapt", "predict"))
"""Those that mostly import these libraries."""
VARIABLE = "MEDBENCH_WARM"  # the address, for jobs
_IMPORTS = ("torch", "peft", "transformers.image_processing_utils", "transformers.generation", "transformers.models.auto")
_LONGEST = 1 << 20  # of what a job hands over [bytes]
_THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}  # read at import; a fork cannot take threads along


def start() -> None:
    """Called once jobs are sure to run here: start the process, as a child that dies with this one, and let later jobs know."""
    if sys.platform != "linux":
        return
    name = f"medbench-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")  # in no folder, so nothing is left of it
        listener.listen()
        command = [sys.executable, "-m", "medbench", VERB, str(listener.fileno())]
        subprocess.Popen(command, env={**os.environ, **_THREADS}, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
    os.environ[VARIABLE] = name


def hand_over() -> int | None:
    """The exit code of this process's job, once a fork of the warm process has done it; None where it must do it itself."""
    name = os.environ.get(VARIABLE)
    if not name or not STAGES & {*sys.argv[1:2]} or any(os.environ.get(key) != value for key, value in _THREADS.items()):
        return None
    runtime.die_with_parent()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(f"\0{name}")
            if _owner(connection) != os.getuid():
                return None
            socket.send_fds(connection, [json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
            answer = connection.recv(1)
        except OSError:  # it is gone without having taken the job, or the environment is too long
            return None
    return answer[0] if answer else 1  # it was killed, or ended with a traceback


def serve(listener: socket.socket) -> socket.socket:
    """Import, then fork a job for each connection, until Snakemake dies. Returns in the forks only: where the exit code is sent to."""
    runtime.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the jobs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # jobs answer for themselves
    for name in _IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # what is shared with the forks stays shared
    while True:
        connection, _ = listener.accept()
        request, files, _, _ = socket.recv_fds(connection, _LONGEST, 3)
        if request and _owner(connection) == os.getuid() and not os.fork():
            listener.close()
            _become(connection, request, files)
            return connection
        connection.close()
        for file in files:
            os.close(file)


def _owner(connection: socket.socket) -> int:
    """The user at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # process, user, group
    return int.from_bytes(found[4:8], sys.byteorder)


def _become(connection: socket.socket, request: bytes, files: list[int]) -> None:
    """Take the place of the process at the other end."""
    runtime.die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()


def _die_with(connection: socket.socket) -> None:
    connection.recv(1)  # nothing is ever sent: it closed
    os.kill(os.getpid(), signal.SIGKILL)
