"""A disk as it is elsewhere: what this process asks of it is refused by the kernel itself, and another host by a namespace."""

import ctypes
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = {"x86_64": {"flock": 73, "fsync": 74}, "aarch64": {"flock": 32, "fsync": 82}}


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filters", ctypes.POINTER(_Filter)))


def refuse(call: str, number: int) -> None:
    """Have every further call of this name answered with this errno, by seccomp: load the number of the call; if it is this, refuse.

    0: as if it were granted, a lock to everybody, as to hosts of which each keeps its own.
    """
    steps = (_Filter * 4)(
        (0x20, 0, 0, 0), (0x15, 0, 1, CALLS[platform.machine()][call]), (0x06, 0, 0, 0x00050000 | number), (0x06, 0, 0, 0x7FFF0000)
    )
    system = ctypes.CDLL(None, use_errno=True)
    assert system.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert system.prctl(22, 2, ctypes.byref(_Program(4, steps)), 0, 0) == 0, os.strerror(ctypes.get_errno())


@cache
def can_be_elsewhere() -> bool:
    """Whether other hosts can be made here."""
    done = subprocess.run([*_elsewhere("x"), "true"], capture_output=True, check=False) if sys.platform == "linux" else None
    return done is not None and done.returncode == 0 and platform.machine() in CALLS


def _elsewhere(host: str) -> list[str]:
    return ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]


def start(program: str, folder: Path, number: int | None = None, host: str = "", call: str = "flock") -> "subprocess.Popen[str]":
    """A Python program in a folder; `number`: what the call is answered with, `host`: on another one."""
    code = ("" if number is None else f"from tests.unit import refusing\nrefusing.refuse({call!r}, {number})\n") + program
    command = [*(_elsewhere(host) if host else []), sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    """Its first line."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
