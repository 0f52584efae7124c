"""Nano runs that are disturbed at a random moment and then simply run again.

`make campaign`, or `python -m benchmarks.campaign --rounds 3`. Every round starts from the sources and the finished mini models,
which an undisturbed run made before. It is disturbed once (`KILLS`, `FAULTS`), ends as it ends, and is run again by the same
command. It is good when the rerun succeeds, every Parquet table has the undisturbed run's bytes, and every job that Snakemake
had recorded as finished kept its run record, and no unfinished work is left over. Images are loaded by threads, so the processes that can
be killed are Snakemake and its jobs. Nano downloads nothing; in place of a corrupted download, a finished file is
altered. A token is planted and looked for in all that the runs leave.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("Snakefile", "workflow", "medbench", "config", "profiles", "slurm", "resources")
TOKEN = "hf_planted0token1that2must3never4appear"
COMMAND = (str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--configfile", "config/nano.yaml")
VARIABLES = {**os.environ, "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}


Disturbance = Callable[[Path, "subprocess.Popen[bytes]", float], str]


class Undisturbed(NamedTuple):
    """What every round is compared with, and starts from."""

    folder: Path
    tables: dict[str, bytes]
    seconds: float  # of everything after the mini models


class Skipped(Exception):
    """A round that this machine cannot play."""


# --- folders


def copy_sources(folder: Path) -> Path:
    """A clone without results."""
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name, follow_symlinks=False)
    return folder


def tables(folder: Path) -> dict[str, bytes]:
    """Every Parquet table of the results by its path; unfinished work is none."""
    results = folder / "results"
    files = [file for file in sorted(results.rglob("*.parquet")) if ".partial" not in file.parts]
    return {str(file.relative_to(results)): file.read_bytes() for file in files}


def records(folder: Path) -> dict[str, str]:
    """Job -> text of its run record."""
    found = {}
    for file in (folder / "results").rglob("*.run.json"):
        text = file.read_text()
        record = json.loads(text)
        found[f"{record['stage']} {'/'.join(record['names'])}"] = text
    return found


def finished(folder: Path) -> dict[str, str]:
    """Records of the jobs that Snakemake knows to be finished: recorded, and not marked as begun."""
    begun = {file.name for file in (folder / ".snakemake/incomplete").rglob("*")}
    found = {}
    for file in (folder / "results").rglob("*.run.json"):
        stem = file.name.removesuffix(".run.json")
        outputs = [file.with_name(stem + ending) for ending in ("", ".parquet", ".json", ".safetensors", ".html")]
        marks = {urlsafe_b64encode(str(output.relative_to(folder)).encode()).decode() for output in outputs if output.exists()}
        if marks and not marks & begun:
            text = file.read_text()
            record = json.loads(text)
            found[f"{record['stage']} {'/'.join(record['names'])}"] = text
    return found


def leaks(folder: Path) -> list[Path]:
    """Files that hold the planted token, of results, logs and Snakemake's own."""
    places = [folder / name for name in ("results", "logs", ".snakemake")]
    return [file for place in places for file in place.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


def left_over(folder: Path) -> list[Path]:
    """Files of unfinished work."""
    files = [file for file in (folder / "results").rglob("*") if file.is_file()]
    return [file for file in files if ".partial" in file.parts or file.name.endswith(".partial")]


# --- runs


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """Snakemake in the background; what it says is appended to `logs/console.txt`."""
    (folder / "logs").mkdir(exist_ok=True)
    with (folder / "logs/console.txt").open("ab") as out:
        return subprocess.Popen(COMMAND, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=VARIABLES)


def run(folder: Path) -> int:
    """Snakemake until it ends."""
    return start(folder).wait()


def undisturbed(folder: Path) -> Undisturbed:
    """The run to compare with, the time of what follows the mini models taken apart."""
    copy_sources(folder)
    models = [f"results/models/{name}" for name in ("nano-clip", "nano-medclip", "nano-llava", "nano-llava-med")]
    subprocess.run([*COMMAND[:1], *models, *COMMAND[1:]], cwd=folder, check=True, env=VARIABLES, capture_output=True)
    begun = time.monotonic()
    if run(folder):
        raise SystemExit(f"the undisturbed run failed:\n{(folder / 'logs/console.txt').read_text()[-3000:]}")
    return Undisturbed(folder, tables(folder), time.monotonic() - begun)


def begin(whole: Undisturbed, folder: Path) -> Path:
    """Sources and finished mini models, with what Snakemake knows of them."""
    copy_sources(folder)
    shutil.copytree(whole.folder / "results/models", folder / "results/models")
    shutil.copytree(whole.folder / ".snakemake/metadata", folder / ".snakemake/metadata")
    return folder


def named(process: psutil.Process) -> str:
    """What a process is, for people."""
    words = process.cmdline()
    if "medbench" in words:
        return " ".join(words[words.index("medbench") + 1 :])
    return "Snakemake" if any(word.endswith("snakemake") for word in words) else "the shell of a job"


# --- disturbances: each is given a running Snakemake, returns when that has ended, and says what it did


def kill(kind: str) -> Disturbance:
    """SIGKILL to Snakemake, a job, or any of them, at a moment."""

    def disturb(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
        begun, rng = time.monotonic(), random.Random(moment)
        while snakemake.poll() is None:
            time.sleep(0.02)
            if time.monotonic() - begun < moment:
                continue
            try:
                main = psutil.Process(snakemake.pid)
                choices = {"Snakemake": [main], "job": main.children(), "any": [main, *main.children(recursive=True)]}[kind]
                if choices:
                    chosen = rng.choice(choices)
                    what, after = named(chosen), time.monotonic() - begun
                    chosen.kill()
                    snakemake.wait()
                    return f"killed {what} after {after:.1f} s"
            except psutil.Error:  # it ended meanwhile
                continue
        return f"ended before {moment:.1f} s: nothing was killed"

    return disturb


def cut_partial_file(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Kill Snakemake while a training has a state, and cut that in half."""
    while snakemake.poll() is None:
        if states := list((folder / "results/.partial").glob("*/training.pt")):
            psutil.Process(snakemake.pid).kill()
            snakemake.wait()
            time.sleep(1)  # the kernel kills the jobs
            size = states[0].stat().st_size
            os.truncate(states[0], size // 2)
            return f"killed Snakemake and cut {states[0].name} from {size} to {size // 2} bytes"
        time.sleep(0.002)
    return "ended before a training kept a state"


def end(snakemake: "subprocess.Popen[bytes]", moment: float) -> None:
    """Kill Snakemake, and with it its jobs, at a moment."""
    try:
        snakemake.wait(moment)
    except subprocess.TimeoutExpired:
        snakemake.kill()
        snakemake.wait()
        time.sleep(1)  # the kernel kills the jobs


def alter_result(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Flip a bit of a finished file, or cut it: a table, weights, a mini model. The next start must find it by its run record."""
    end(snakemake, moment)
    rng = random.Random(moment)
    written = [name for text in records(folder).values() for name in json.loads(text)["outputs"]]
    name = rng.choice(sorted(name for name in written if name.endswith((".parquet", ".safetensors"))))
    data = bytearray((folder / name).read_bytes())
    if cut := rng.random() < 0.5:
        data = data[: len(data) // 2]
    else:
        data[rng.randrange(len(data))] ^= 1
    (folder / name).write_bytes(data)
    return f"killed Snakemake and {'cut' if cut else 'flipped a bit of'} {name}"


def forget(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Take away what Snakemake knows of finished jobs: their run records know it too."""
    end(snakemake, moment)
    shutil.rmtree(folder / ".snakemake/metadata")
    return "killed Snakemake and removed its metadata"


def empty_state(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Empty the resolved configurations, as a power cut may leave files that were not on the disk yet."""
    end(snakemake, moment)
    emptied = sorted((folder / "results/.config").glob("*.json"))
    for file in emptied:
        file.write_bytes(b"")
    return f"killed Snakemake and emptied {len(emptied)} resolved configurations"


def fill_disk(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Leave no room in `results` after the moment, then make room again."""
    snakemake.kill()
    snakemake.wait()
    results, aside = folder / "results", folder / "aside"
    results.rename(aside)
    results.mkdir()
    mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", str(results))
    try:
        shutil.copytree(aside, results, dirs_exist_ok=True)
        again = start(folder)
        time.sleep(moment)
        used = shutil.disk_usage(results).used
        mount("-o", f"remount,size={used // 1024 + 64}k", str(results))
        code = again.wait()
        shutil.rmtree(aside)
        shutil.copytree(results, aside)
    finally:
        subprocess.run(["umount", str(results)], check=True)
    results.rmdir()
    aside.rename(results)
    return f"disk full after {moment:.1f} s (exit code {code})"


def read_only(folder: Path, snakemake: "subprocess.Popen[bytes]", moment: float) -> str:
    """Let nothing be written to `results` from the moment on until Snakemake gives up."""
    snakemake.kill()
    snakemake.wait()
    results = folder / "results"
    mount("--bind", str(results), str(results))
    try:
        again = start(folder)
        time.sleep(moment)
        while again.poll() is None:
            done = subprocess.run(["mount", "-o", "remount,ro,bind", str(results)], check=False, stderr=subprocess.DEVNULL)
            if not done.returncode:
                break
            time.sleep(0.01)  # busy while a file is open to be written
        code = again.wait()
    finally:
        subprocess.run(["umount", str(results)], check=True)
    return f"results read-only after {moment:.1f} s (exit code {code})"


def mount(*arguments: str) -> None:
    """Raises Skipped where this is not allowed."""
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"mount is not allowed here: {done.stderr.strip()}")


KILLS = [kill("any"), kill("job"), kill("Snakemake")]
FAULTS = [cut_partial_file, fill_disk, read_only, alter_result, forget, empty_state]


def play(whole: Undisturbed, folder: Path, disturb: Disturbance, moment: float) -> str:
    """One round; the line that says how it went. Raises SystemExit when something was lost, done twice or leaked."""
    begin(whole, folder)
    what = disturb(folder, start(folder), moment)
    before, kept = records(folder), finished(folder)
    code = run(folder)
    if code:
        raise SystemExit(f"{what}: the rerun failed ({code}):\n{(folder / 'logs/console.txt').read_text()[-4000:]}")
    after = records(folder)
    twice = sorted(job for job, text in kept.items() if after.get(job) != text and disturb is not alter_result)
    made = tables(folder)
    differ = sorted(name for name in made.keys() | whole.tables.keys() if made.get(name) != whole.tables.get(name))
    found = [str(file) for file in leaks(folder)]
    left = [str(file) for file in left_over(folder)]
    if twice or differ or found or left:
        wrong = f"finished jobs executed again {twice}; tables that differ {differ}; token in {found}; left over {left}"
        raise SystemExit(f"{what}: {wrong}; see {folder}")
    ran = sorted(job for job, text in after.items() if before.get(job) != text)
    return f"{what}; {len(kept)} finished jobs left alone; recomputed {len(ran)}, first of them {', '.join(ran[:3])}; tables equal"


def main(arguments: list[str] | None = None) -> int:
    """Prints one line a round; the exit code is not 0 as soon as one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    rng = random.Random(given.seed)
    n_kills = max(given.rounds - len(FAULTS), min(given.rounds, 2))
    disturbances = [KILLS[number % len(KILLS)] for number in range(n_kills)] + FAULTS[: given.rounds - n_kills]
    with tempfile.TemporaryDirectory(prefix="medbench-campaign-") as place:
        whole = undisturbed(Path(place) / "undisturbed")
        if found := leaks(whole.folder):
            raise SystemExit(f"the token stands in {found}")
        print(f"undisturbed: {len(whole.tables)} tables, {whole.seconds:.0f} s after the mini models", flush=True)
        for number, disturb in enumerate(disturbances, 1):
            folder = Path(place) / f"round-{number}"
            try:
                line = play(whole, folder, disturb, rng.uniform(0.1, 0.9) * whole.seconds)
            except Skipped as reason:
                line = f"skipped: {reason}"
            print(f"round {number}: {line}", flush=True)
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
