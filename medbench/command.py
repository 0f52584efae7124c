"""The configuration that a command is about: what verbs and stages read alike of the command line."""

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.errors import MedbenchError, choose

if TYPE_CHECKING:
    from medbench import config as configuration

TRACKED = False  # what is decided here reaches a job by its parameters
RESOLVED = "MEDBENCH_RESOLVED"  # variable by which the rules name the resolved configuration
ROOT = Path(__file__).parents[1]  # the clone: registries are found there from any working directory
HOME = "MEDBENCH_HOME"  # variable that names a clone, where medbench is installed without one
_start: Path | None = None
"""Where the user stands, once `-C` or the script `medbench` has left it."""


def enter(folder: str) -> None:
    """Work in another folder. Raises MedbenchError where there is none."""
    global _start
    before = Path.cwd()
    try:
        os.chdir(folder)
        _start = before
    except OSError as error:
        raise MedbenchError(f"-C {folder}", f"is no folder to work in ({error.strerror})", "give one that exists") from None


def is_clone(folder: Path) -> bool:
    """Whether a folder is medbench's repository."""
    return all((folder / name).is_file() for name in ("Snakefile", "config/config.yaml", "medbench/cli.py"))


def require_clone() -> None:
    """Raise MedbenchError where medbench is installed without its registries and rules, as from a wheel."""
    if not is_clone(ROOT):
        found = "is installed without its repository, where registries and rules are"
        raise MedbenchError("medbench", found, f"clone it and set {HOME} to the clone, or give `medbench -C CLONE ...`")


def cores(given: str) -> int:
    """As Snakemake takes them: a number, or `all` that this process may use. Raises MedbenchError for what is neither."""
    if given == "all":
        return len(os.sched_getaffinity(0))
    if not given.isdecimal() or not int(given):
        raise MedbenchError(f"--cores {given}", "is no number of cores", "give 1 or more, or leave it out")
    return int(given)


def positive(text: str) -> int:
    """A whole number of 1 or more. Raises argparse.ArgumentTypeError for what is none."""
    if not (text.isdecimal() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def given(text: str) -> Path:
    """A file that the user names: relative to where the user stands, or else to the working folder (`config/open.yaml`)."""
    path = output(text)
    return path if path.exists() or not Path(text).exists() else Path(text)


def output(text: str) -> Path:
    """A file to write, relative to where the user stands."""
    path = Path(text).expanduser()
    return _start / path if _start and _start != Path.cwd() else path


def new(text: str) -> Path:
    """The same for a file or folder that is not there yet. Raises MedbenchError for one that is: a person's work may be in it."""
    path = output(text)
    if not text or os.path.lexists(path):
        raise MedbenchError(path if text else "''", "exists already" if text else "is no name of a file", "give another name")
    return path


def add_config_options(parser: argparse.ArgumentParser, run: bool = False) -> None:
    """`--configfile`, as Snakemake understands it; and for a verb about a `run`, its name in `config/` as the only argument."""
    if run:
        parser.add_argument("run", nargs="?", help="name of a run in config/ or of a try, or a run file; else that of --configfile")
    parser.add_argument("--configfile", type=given, nargs="+", default=[], help="laid over config/config.yaml; later files win")


def read_config(args: argparse.Namespace) -> "configuration.Config":
    """The configuration a verb was called with; under Snakemake the one that the start of the workflow resolved."""
    from medbench import config as configuration  # with Pydantic, as long as most jobs without a model take

    if resolved := os.environ.get(RESOLVED):
        return configuration.from_resolved(Path(resolved))
    require_clone()
    files = config_files(args)
    configuration.require_whole(files)
    return as_started(configuration.from_files([ROOT / "config" / "config.yaml", *files], ROOT))


def as_started(config: "configuration.Config") -> "configuration.Config":
    """A configuration as every start takes it: which data sets are for testing alone, and which cells cannot be made."""
    from medbench.cells import with_left_out
    from medbench.datasets.layouts import with_test_only

    return with_left_out(with_test_only(config))


def config_files(args: argparse.Namespace) -> list[Path]:
    """What is laid over the demo's configuration: the file of a run that is named, then those of `--configfile`."""
    return [*([_file_of(args.run)] if getattr(args, "run", None) else []), *args.configfile]


def is_file(run: str) -> bool:
    """Whether what stands for a run is its file, and no name."""
    return run.endswith((".yaml", ".yml")) or "/" in run


def runs() -> dict[str, list[Path]]:
    """Name of each run in `config/` and of those that `try` wrote -> the files that have it: one, unless somebody copied it."""
    found: dict[str, list[Path]] = {}
    for file in sorted(one for one in (*(ROOT / "config").glob("*.yaml"), *Path("tries").glob("*/run.yaml")) if one.is_file()):
        if named := re.search(r"""^run:\s*["']?([\w.-]+)""", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            found.setdefault(named[1], []).append(file)
    return found


def again(configfile: Path) -> str:
    """The command that runs a configuration, from where the user stands."""
    place = "" if Path.cwd() == ROOT else f"--snakefile {shlex.quote(str(ROOT / 'Snakefile'))} "
    return f"snakemake {place}--cores all --configfile {shlex.quote(str(configfile))}"


def _file_of(run: str) -> Path:
    """The run configuration of that name, or the file itself. Raises MedbenchError where there is none."""
    if is_file(run):
        return given(run)
    known = runs()
    if len(found := known.get(run, [])) != 1:
        said = f"{' and '.join(file.name for file in found) or 'no file'} in config/ or tries/ has it"
        raise MedbenchError(f"run {run!r}", said, f"{choose(run, known)}, or give --configfile FILE")
    return found[0]


def cell_names(text: str) -> tuple[str, ...]:
    """The names in `DATASET/MODEL/MODE`, or in the path of a file or folder of that cell: three, where it is one."""
    names = re.sub(r"^(.*/)?results/[^/]+/", "", text.strip("/")).removesuffix(".parquet").split("/")
    return tuple(names[:3] if "results/" in text else names)
