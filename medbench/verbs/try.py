"""From one's own images to a verdict: read a table or a folder of class folders, propose a data set and a run, run it, give the answer.

Example: python -m medbench try moles.csv --images photos --modality dermoscopy
"""

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from medbench import trial
from medbench.command import ROOT, again, cores, given, read_config, runs
from medbench.config import Config
from medbench.errors import MedbenchError, choose
from medbench.verbs import plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "data",
        type=_data,
        help="a CSV, TSV, xlsx, Parquet or JSON table of images or of questions, a folder with a folder for each class, or of DICOM files",
    )
    parser.add_argument("--images", type=given, help="folder that the table's image paths are relative to; else the table's own")
    parser.add_argument("--sheet", metavar="NAME", help="of a spreadsheet; else the first one that names images")
    parser.add_argument("--modality", help="what kind of images they are: x-ray, dermoscopy, fundus, ...")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help="image, label, group, split, question, answer=its name (of DICOM: an attribute)",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="all classes in their order; of two the second is the positive one")
    parser.add_argument(
        "--prompts", nargs="+", default=[], metavar="CLASS=TEXT", help="what a class looks like in words; repeat a class for more"
    )
    parser.add_argument("--group", metavar="REGEX", help="of class folders: parentheses find the patient in a file's path")
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="of the registry (`python -m medbench models`); default: small ones that need no GPU"
    )
    parser.add_argument(
        "--modes", nargs="+", metavar="MODE", help="default: images: ots lp; questions: ots lora; lettered ones: ots ots-no-image"
    )
    parser.add_argument("--all", action="store_true", help=f"no draw of a large data set (more than {trial.MANY} rows) for a first look")
    parser.add_argument("--name", help="of the data set and the run; default: that of the file or folder")
    parser.add_argument("--only-write", action="store_true", help="write the data set's entry and the run file, and run nothing")
    parser.add_argument("--cores", default="all", help="as Snakemake has it")


def execute(args: argparse.Namespace) -> None:
    """Do it. Raises MedbenchError for what cannot be told, with the flag that says it."""
    config, n_cores = _config(), cores(args.cores)
    seen = _asked(args)
    if args.classes:
        if seen.classes and set(args.classes) != set(seen.classes):
            raise MedbenchError("--classes", f"are not the classes that were found ({', '.join(seen.classes)})", "name each of them once")
        seen = seen._replace(classes=tuple(args.classes))
    if args.group:
        if seen.layout != "imagefolder":
            remedy = "leave it out" if seen.layout == "hub-vqa" else "give the column, or the attribute of DICOM: --columns group=NAME"
            raise MedbenchError("--group", f"is of class folders, and {args.data} has none", remedy)
        found_by = f"patients are told by what {args.group} finds in the path below a class folder"
        said = [found_by if line == trial.OWN_PATIENTS else line for line in seen.said]
        seen = seen._replace(options={**seen.options, "group": args.group}, said=said)
    name = trial.slug(args.name) if args.name else _name(args.data)
    has_run = any(not file.is_relative_to(trial.FOLDER) for file in runs().get(name, []))
    name = f"my-{name}" if name in config.datasets or has_run else name
    modality = _modality(args.modality or seen.modality, config)
    knowing = {one for model in config.models.values() if model.role == "specialist" for one in model.pretrained_on} - {"everyday"}
    if modality not in knowing:
        seen.said.append(
            f"no specialist of the registry was trained on {modality}: RQ1 is not asked ({', '.join(sorted(knowing))}: --modality)"
        )
    prompts: dict[str, list[str]] = {}
    for one in args.prompts:
        key, found, text = one.partition("=")
        if not found or key not in seen.classes:
            raise MedbenchError(
                f"--prompts {one}", "is not CLASS=TEXT of a class", choose(key, seen.classes or ["no class: it asks questions"])
            )
        prompts.setdefault(key, []).append(text)
    models, modes = args.models or list(trial.MODELS[seen.task]), args.modes or list(trial.MODES[seen.task])
    for chosen, known in ((models, config.models), (modes, config.modes)):
        for one in chosen:
            if one not in known:
                raise MedbenchError(
                    f"--models {one}" if known is config.models else f"--modes {one}", "is in no registry", choose(one, known)
                )
    folder = trial.FOLDER / name
    run = {
        "run": name,
        "seed": 0,
        "registries": {"datasets": str(folder / "data.yaml")},
        "datasets": [name],
        "models": models,
        "modes": modes,
    }
    run["warm"] = all(config.models[one].pretrain is not None for one in models)
    if seen.rows:
        seen = seen._replace(raw_dir=folder)
    entry = trial.entry(seen, modality, prompts, whole=args.all or args.models is not None)
    seen.said.extend(trial.said_of_prompts(entry, prompts))
    if "sample" in entry:
        seen.said.append(
            f"for a first look {trial.SAMPLE['train']} of its {seen.n:,} rows train and {trial.SAMPLE['test']} test (--all: all)"
        )
    command, more = f"medbench {shlex.join(sys.argv[1:])}", again(folder / "run.yaml")
    new = trial.write(folder, {"data.yaml": {name: entry}, "run.yaml": run}, command, more, seen.rows)
    try:
        planned = plan.look(_config(folder / "run.yaml"), n_cores, is_probed=not args.only_write)
    except MedbenchError:  # what cannot run is not kept: the same command, corrected, would find other files there
        for file in new:
            file.unlink()
        with contextlib.suppress(OSError):  # it holds other files
            folder.rmdir()
        raise
    _say(seen, modality, folder)
    for line in plan.brief(planned):
        print(f"  {line}")
    if args.only_write:
        return
    sys.stdout.flush()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    words = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile"), "--cores", str(n_cores)]
    code, interrupted = _run([*words, "--configfile", str(folder / "run.yaml")])
    if interrupted:
        raise MedbenchError(f"run {name}", "was interrupted", "give the same command again: it goes on where it was")
    if code:
        remedy = f"mend it and give the same command again; {folder} holds what it runs"
        raise MedbenchError(f"run {name}", "did not finish; the lines above say why", remedy)
    print(f"Yours to keep and change: {folder / 'run.yaml'} (models, modes) and {folder / 'data.yaml'} (classes, prompts). Again, or more:")
    print(f"  {again(folder / 'run.yaml')}")
    if args.models is None:
        print("These models are small and drawn for the demo: for a real answer add --models, such as clip biomedclip, and --name.")


def _run(words: Sequence[str]) -> tuple[int, bool]:
    """Exit code, and whether a person pressed Ctrl-C: Snakemake gets it too, ends its jobs, and is waited for."""
    interrupted = False
    with subprocess.Popen(words) as process:
        while True:
            try:
                return process.wait(), interrupted
            except KeyboardInterrupt:
                interrupted = True


def _config(*files: Path) -> Config:
    return read_config(argparse.Namespace(configfile=list(files)))


def _name(data: Path) -> str:
    """Of the folder, or of a table that has a name of its own."""
    is_own = data.is_file() and data.stem.lower() not in ("labels", "data", "metadata", "index", "train")
    return trial.slug(data.stem if is_own else data.resolve().parent.name if data.is_file() else data.resolve().name)


def _data(text: str) -> Path:
    """A file or folder, or as it stands the name of a data set of the hub."""
    return path if (path := given(text)).exists() or not trial.HUB.fullmatch(text) else Path(text)


def _pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    found = {}
    for one in given:
        ours, sign, theirs = one.partition("=")
        if not sign or not theirs or ours not in trial.ALIKE:
            raise MedbenchError(f"{flag} {one}", "is not OURS=THEIRS", f"ours is one of {', '.join(trial.ALIKE)}")
        found[ours] = theirs
    return found


def _asked(args: argparse.Namespace) -> trial.Seen:
    """What was seen; a person at a terminal is asked for a column. Raises MedbenchError with the flag for what cannot be told."""
    columns = _pairs(args.columns, "--columns")
    while True:
        try:
            return trial.look(args.data, args.images, columns, args.sheet)
        except trial.Ask as ask:
            given = input(f"{ask.what} ").strip() if sys.stdin.isatty() else ""
            if not given:
                raise MedbenchError(f"--columns {ask.column}=NAME", ask.what, f"give --columns {ask.column}=NAME") from None
            columns[ask.column] = given


def _modality(given: str | None, config: Config) -> str:
    """As given, or as a person at a terminal answers: whether a specialist knows such images decides which questions are asked."""
    known = trial.modalities(config)
    if given is None and sys.stdin.isatty():
        given = input(f"What kind of images are these ({', '.join(known)}, or another word)? ").strip() or None
    if given is None:
        raise MedbenchError(
            "--modality",
            "is not given, and decides which models are specialists for these images",
            f"give --modality, one of {', '.join(known)}, or a word of your own",
        )
    letters = given.lower().replace(" ", "-")
    return next((one for one in known if one.replace("-", "") == letters.replace("-", "").removesuffix("s")), letters)


def _say(seen: trial.Seen, modality: str, folder: Path) -> None:
    what = f"images of {len(seen.classes)} classes: {', '.join(seen.classes)}" if seen.classes else "questions about images"
    print(f"{seen.raw_dir or (seen.source or {})['repo']}: {what}; {modality}")
    if len(seen.classes) == 2:
        print(f"  positive class: {seen.classes[1]} (--classes turns it round)")
    for line in seen.said:
        print(f"  {line}")
    print(f"  written: {folder / 'data.yaml'}, {folder / 'run.yaml'}")
