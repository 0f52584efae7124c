"""`transformers serve` with a checkpoint on a port of the loopback: the real server of our tests."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
MINI = ROOT / "resources/models/mini-llava"


class Served:
    """A running server. `url` ends in /v1."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process, self.url = process, f"http://127.0.0.1:{port}/v1"

    def kill(self) -> None:
        """At once, as a machine that fails."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Served]:
    """Up and ready within ten to twenty seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--device", "cpu", "--host", "127.0.0.1"]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=stream, stderr=stream, env={**os.environ, **quiet})
    served = Served(process, port)
    try:
        end = time.monotonic() + 1500  # ten to twenty seconds where cores are free
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield served
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
