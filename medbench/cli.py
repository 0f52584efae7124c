"""The command line: one verb a stage, named like its rule. `python -m medbench <stage> --help` runs any of them by hand."""

import argparse
import contextlib
import difflib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from medbench import paths, stages
from medbench.command import HOME, RESOLVED, ROOT, add_config_options, enter, is_clone, read_config
from medbench.errors import MedbenchError, choose
from medbench.jobs import devices, digests, files, process, records, rerun, warm
from medbench.jobs.stage import Stage
from medbench.stages import STAGES
from medbench.verbs import VERBS
from medbench.verbs import get as get_verb

if TYPE_CHECKING:
    from medbench import config as configuration

TRACKED = False  # what is decided here reaches a job by its parameters
Look: TypeAlias = Callable[[str, tuple[str, ...]], stages.Look]


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit code 0, or the verb's own; 2 with one line for an expected error; all else is a bug and shows a traceback."""
    process.open_outputs()
    words = _plain(sys.argv[1:] if argv is None else argv)
    try:
        words = _entered(words)
        own = [name for name in (*STAGES, *VERBS) if words[:1] == [name]]  # a job imports its own stage only
        if words and not own and not words[0].startswith("-"):
            raise MedbenchError(f"medbench {words[0]}", "is no stage and no verb", choose(words[0], (*STAGES, *VERBS)))
        args = parser(own or (*STAGES, *VERBS)).parse_args(words)
        if words[0] == "completion":  # which is about all verbs, and stands below this module
            args.verbs = all_parsers
        code = args.execute(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough: `medbench models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # whoever pressed Ctrl-C needs no traceback
        with contextlib.suppress(OSError):
            print("interrupted: the same command goes on where it was", file=sys.stderr, flush=True)
        return 130
    except MedbenchError as error:
        return _refused(error)
    except Exception as error:
        if (line := files.trouble(error, paths.RESULTS)) is None:
            raise
        return _refused(line)
    return code


def parser(names: Iterable[str]) -> argparse.ArgumentParser:
    """What reads the command line, for some stages and verbs."""
    found = Parser(prog="medbench", description="Specialist or adapted generalist? One verb a stage.", epilog=EPILOG)
    found.add_argument("--version", action="version", version=f"medbench {importlib.import_module('medbench').__version__}")
    found.add_argument("-C", dest="folder", metavar="FOLDER", help="work there: results/ lies in it. It stands before the verb")
    verbs = found.add_subparsers(dest="verb", required=True, metavar="stage")
    for name in names:
        _add_stage(verbs, name) if name in STAGES else _add_verb(verbs, name)
    return found


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    """Verb -> what reads its command line."""
    whole = parser((*STAGES, *VERBS))
    return next(dict(action.choices) for action in whole._actions if isinstance(action, argparse._SubParsersAction))


EPILOG = "Example: medbench try moles.csv --images photos --modality dermoscopy"


class Parser(argparse.ArgumentParser):
    """As argparse's, but what it does not understand is one line that names what is nearest."""

    def error(self, message: str) -> NoReturn:
        """Raises MedbenchError."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0] if message.startswith("unrecognized arguments: ") else ""
        flags = [flag for one in self._all() for action in one._actions for flag in action.option_strings if flag.startswith("--")]
        near = difflib.get_close_matches(unknown, flags, 1, 0.6) if unknown.startswith("-") else []
        remedy = f"{f'did you mean {near[0]}? ' if near else ''}see `{self.prog} --help`"
        raise MedbenchError(self.prog, message, remedy)

    def _all(self) -> "list[argparse.ArgumentParser]":
        """Itself and those of its verbs: what a verb does not know, argparse reports of the whole."""
        below = [one for action in self._actions if isinstance(action, argparse._SubParsersAction) for one in action.choices.values()]
        return [self, *below]


def script() -> int:
    """The command `medbench`, from any folder: inside a clone it uses that clone and works in its root; elsewhere it works where the user
    stands, with the clone that MEDBENCH_HOME names or that it was installed from."""
    words = sys.argv[1:]
    folder = Path(words[1] if words[:1] == ["-C"] and len(words) > 1 else ".").resolve()
    around = next((one for one in (folder, *folder.parents) if is_clone(one)), None)
    words = ["-C", str(around or folder), *(words[2:] if words[:1] == ["-C"] else words)]
    home = around or Path(os.environ.get(HOME) or ROOT).expanduser().resolve()
    if home != ROOT and is_clone(home):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))}
        os.execve(sys.executable, [sys.executable, "-m", "medbench", *words], environment)
    return main(words)


def _entered(words: list[str]) -> list[str]:
    """The command line without `-C FOLDER`, in that folder."""
    if words[:1] != ["-C"] or len(words) < 2:
        return words
    enter(words[1])
    return _plain(words[2:])


def _plain(argv: list[str]) -> list[str]:
    """`fetch --all RUN` is a verb of its own: all that a run needs is more than the stage's one data set."""
    return ["fetch-all", *(word for word in argv[1:] if word != "--all")] if argv[:1] == ["fetch"] and "--all" in argv else argv


def _refused(error: MedbenchError) -> int:
    with contextlib.suppress(OSError):  # the log may lie on the full disk too: the exit code says it then
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
    return 2


def require_plain(path: Path, marks: str = "{}") -> None:
    """Raise MedbenchError for a path that Snakemake takes for a pattern, or `marks` break otherwise."""
    if mark := next((mark for mark in marks if mark in str(path)), None):
        meaning = "the beginning or end of a wildcard" if mark in "{}" else "the end of a path"
        raise MedbenchError(path, f"`{mark}` in its name is taken for {meaning}", "rename the file or folder, or move it")


def stale(cells: Iterable[tuple[str, str, str]], look: Look) -> list[str]:
    """Of finished cells, those whose predictions were made with other library versions than the installed ones: `cell: changes`."""
    recorded = [tuple(cell) for cell in cells if paths.run_record(paths.predictions(*cell)).exists()]
    return [f"{'/'.join(cell)}: {', '.join(changes)}" for cell in recorded if (changes := look("predict", cell).upgraded)]


def summary(config: "configuration.Config", cells: Iterable[tuple[str, str, str]]) -> str:
    """How many cells a run has, baselines apart."""
    baselines, tasks = 0, dict[str, int]()
    for dataset, model, _ in cells:
        if config.models[model].kind == "baseline":
            baselines += 1
        else:
            task = config.datasets[dataset].task
            tasks[task] = tasks.get(task, 0) + 1
    parts = ", ".join(f"{count} {task}" for task, count in tasks.items())
    return f"run {config.run.run}: {sum(tasks.values())} cells ({parts}), {baselines} of baselines"


def unready(config: "configuration.Config") -> list[str]:
    """What of a run cannot run yet, a line each: data sets whose files need an application, models whose architecture has no file."""
    from medbench import config as configuration
    from medbench.config import sources

    found = []
    for dataset in config.run.datasets:
        entry = config.datasets[dataset]
        if isinstance(entry.source, configuration.Manual) and configuration.is_fetched(entry) and not paths.fetched(dataset).exists():
            folder = paths.raw(dataset)
            if not folder.is_dir() or not any(folder.iterdir()):
                found.append(": ".join((dataset, "; ".join(sources.application(entry.source.model_dump(), dataset)))))
        elif entry.about.access == "gated" and configuration.is_fetched(entry) and not paths.fetched(dataset).exists():
            found.append(f"{dataset}: its files are gated: accept the licence on the page of {getattr(entry.source, 'repo', 'its source')}")
    absent = [model for model in config.run.models if not config.models[model].has_file]
    return found + [f"{model}: architecture {config.models[model].architecture!r} has no file yet, its cells will fail" for model in absent]


def data_notes(config: "configuration.Config") -> list[str]:
    """How the prepared data sets of a run were read, where that is worth a line."""
    from medbench.datasets.card import losses, remarks
    from medbench.datasets.layouts import imagefolder

    found = []
    for name in config.run.datasets:
        entry = config.datasets[name]
        if entry.layout == "imagefolder" and entry.options.get("group") is None and not paths.card(name).exists():
            found.append(f"{name}: {imagefolder.OWN_PATIENTS.text}")
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError
        ):  # not prepared, or damaged: who reads it says so
            card = json.loads(paths.card(name).read_bytes())
            found += [f"{name}: {line}" for line in (*remarks(card), *losses(card))]
    return found


def secrets(config: "configuration.Config") -> list[str]:
    """Environment variables that hold API keys of the run's models, as far as they are set: what is kept needs none."""
    from medbench.config import sources

    endpoints = (config.models[name].endpoint for name in sources.models(config))
    return sorted({one.key for one in endpoints if one is not None and one.key and os.environ.get(one.key)})


def untrained(config: "configuration.Config") -> list[str]:
    """Data sets of a run without a row for training, a line each."""
    modes = [mode for mode in config.run.modes if config.modes[mode].kind != "zero-shot"]
    left_out = f"{', '.join(modes)} and baselines are" if modes else "baselines are"
    return [f"{name}: no row is for training: {left_out} left out" for name in config.run.datasets if config.datasets[name].test_only]


def without_cells(config: "configuration.Config") -> list[str]:
    """Models and modes of a run that no cell has, a line each; not those modes that `untrained` names for all of its data sets."""
    from medbench.cells import every

    found, run = every(config), config.run
    training = {mode for mode in run.modes if config.modes[mode].kind != "zero-shot"}
    named = training if all(config.datasets[name].test_only for name in run.datasets) else set()
    models = [name for name in run.models if name not in {cell.model for cell in found}]
    modes = [name for name in run.modes if name not in {cell.mode for cell in found} | named]
    lines = [f"model {name} answers no data set of the run in any of its modes" for name in models]
    return lines + [f"mode {name} is run by no model of the run on any of its data sets" for name in modes]


def doubtful_modalities(config: "configuration.Config") -> list[str]:
    """Data sets of a run whose modality no model knows, and one is spelt much like it, a line each."""
    from medbench.config import nearest_modality

    known = {name: config.datasets[name].modality for name in config.run.datasets}
    near = {name: nearest_modality(config, modality) for name, modality in known.items()}
    return [f"{name}: no model knows {known[name]!r}; did you mean {other!r}?" for name, other in near.items() if other]


def unpinned(config: "configuration.Config") -> list[str]:
    """Models of a run whose weights may change from one day to the next, a line each: what is not pinned, and why."""
    from medbench import config as configuration
    from medbench.config import sources
    from medbench.models.checkpoint import is_pinned

    found = []
    for name in sources.models(config):
        entry = config.models[name]
        place = configuration.checkpoint(config, name)
        if entry.pretrain or place is None or not entry.has_file or entry.kind == "remote":
            continue
        repositories = {place: entry.revision, **entry.companions}
        loose = [one for one, revision in repositories.items() if not is_pinned(one, revision, entry.checksums)]
        if loose:
            why = f": {entry.about.unpinned}" if entry.about.unpinned else ": give `revision`, or run `make lock-models`"
            found.append(f"model {name}, {' and '.join(loose)}{why}; run records say which commit was loaded")
    return found


def warnings(config: "configuration.Config", cells: Sequence[tuple[str, str, str]], now: bool, look: Look) -> list[str]:
    """What the start of a run should say: cells made with other library versions; not for `now`, what gets no
    verdict, has no cell, is hard to score, cannot run yet, or is not pinned.

    `look`: `stages.look` at a job of this configuration.
    """
    found = []
    if not config.run.rerun_on_versions and (changed := stale(cells, look)):
        which = f"{len(changed)} of {len(cells)} cells were made with other library versions ({changed[0]})"
        found.append(f"STALE: {which}; with `rerun_on_versions: true` they run again")
    if now:
        return found
    from medbench.planning import prices
    from medbench.stages import interval

    found += [f"NO VERDICT: {line}" for line in interval.no_verdicts(config)]
    found += [f"DATA: {line}" for line in data_notes(config)]
    found += [f"TEST ONLY: {line}" for line in untrained(config)] + [f"NO CELL: {line}" for line in without_cells(config)]
    found += [f"MODALITY: {line}" for line in doubtful_modalities(config)]
    found += [f"COST: {one.said}" for one in prices.estimates(config, cells)]
    found += [f"LEFT OUT: {cell}: {why}" for cell, why in config.left_out.items()]
    found += [f"HARD TO READ: {line}" for line in interval.doubts(config)]
    return [*found, *(f"NOT READY: {line}" for line in unready(config)), *(f"UNPINNED: {line}" for line in unpinned(config))]


EXAMPLES = {"dataset": "nano-radiology", "model": "nano-clip", "mode": "lp", "run": "nano"}
"""Names of each kind, for the example of a stage's help."""


def _add_stage(verbs: Any, name: str) -> None:
    declared = stages.get(name)
    text = (sys.modules[f"medbench.stages.{name}"].__doc__ or "").strip()
    if "Example:" not in text:
        words = " ".join((name, *(EXAMPLES[key] for key in declared.keys)))
        text += f"\n\nExample: python -m medbench {words} --configfile config/nano.yaml"
    parser = verbs.add_parser(name, help=text.split("\n")[0], description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key in declared.keys:
        parser.add_argument(key, type=_slug)
    add_config_options(parser)
    parser.set_defaults(fingerprint=None, retry=False)
    if name in ("predict", "validate"):
        parser.add_argument("--retry", action="store_true", help="of a remote model: ask again for answers kept as empty or filtered")
    if declared.is_handed:
        parser.add_argument(
            "--fingerprint", help="what the rule tracks of the job: it runs with these parameters and reads no configuration"
        )
    parser.set_defaults(execute=lambda args: _run_stage(declared, tuple(getattr(args, key) for key in declared.keys), args))


def _add_verb(verbs: Any, name: str) -> None:
    module = get_verb(name)
    text = (module.__doc__ or "").strip()
    parser = verbs.add_parser(name, help=text.split("\n")[0], description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    parser.set_defaults(execute=module.execute)


def _slug(value: str) -> str:
    try:
        return paths.slug(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Job(NamedTuple):
    """What a stage runs with, and what its record says of it."""

    params: Any
    fingerprint: str
    libraries: tuple[str, ...]
    gpus: int = 0
    beside: Mapping[str, Any] = MappingProxyType({})


def _configured(declared: Stage, names: tuple[str, ...], args: argparse.Namespace) -> _Job:
    """The job as the configuration has it. Raises MedbenchError for a name that is in no registry."""
    from medbench.cells import known
    from medbench.config import require_architecture

    config, where = read_config(args), f"{declared.name} {'/'.join(names)}"
    known(config, where, dict(zip(declared.keys, names, strict=True)))
    if "model" in declared.keys:
        require_architecture(config, names[declared.keys.index("model")], where)
    params = declared.params(config, *names)
    libraries, gpus = rerun.libraries(declared.code(params)), declared.needs(config, *names).gpus
    return _Job(params, declared.fingerprint(params), libraries, gpus, declared.beside(config, *names))


def _handed(declared: Stage, text: str) -> _Job:
    """The job as its rerun key described it to the rule, for a stage that loads nothing by name."""
    fingerprint, end = json.JSONDecoder().raw_decode(text)
    kind = sys.modules[declared.run.__module__].Params
    params = kind(**{key: _tuples(value) for key, value in fingerprint["params"].items()})
    return _Job(params, text[:end], tuple(sorted(json.loads(text[end:]))))


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _run_stage(declared: Stage, names: tuple[str, ...], args: argparse.Namespace) -> None:
    process.die_with_parent()
    process.close_input()
    started = records.process_start()
    given = _handed(declared, args.fingerprint) if args.fingerprint else _configured(declared, names, args)
    devices.claim(given.gpus)
    if declared.name in warm.STAGES:
        from medbench.jobs import lazy

        lazy.without_unused()
        process.keep_memory()
    if args.retry and not given.beside:
        raise MedbenchError(f"{declared.name} {'/'.join(names)}", "asks no service, so there is nothing to retry", "leave out --retry")
    beside = {**given.beside, "retry": args.retry} if args.retry else given.beside
    try:
        facts = declared.execute(given.params, *names, beside=beside)
    except FileNotFoundError as error:
        if str(error.filename) not in map(str, declared.inputs(given.params, *names)):
            raise
        remedy = f"`snakemake --cores all {error.filename}`, with the run's --configfile, makes it"
        raise MedbenchError(error.filename, "does not exist", remedy) from None
    device = str(devices.device()) if "torch" in sys.modules else "cpu"
    found = {"device": device, **devices.gpu_facts(), **facts}
    outputs, inputs = declared.outputs(*names), declared.inputs(given.params, *names)
    records.write_run_record(declared.name, names, outputs, inputs, given.libraries, given.fingerprint, started, found)
    if RESOLVED not in os.environ:  # by hand
        print(f"wrote {outputs[0]}", file=sys.stderr)
    for line in declared.notes(given.params, *names):
        print(f"{declared.name} {'/'.join(names)}: {line}", file=sys.stderr)


def write_resolved(config: "configuration.Config", reads_only: bool = False) -> Path:
    """Write the validated run and registries as one file named by its digest: all jobs of a start read it, so no two can disagree.

    A start that `reads_only` gets the name alone. What no start has used for a quarter of a year goes.
    """
    from medbench import config as configuration

    text = digests.canonical(configuration.dump(config))
    path = paths.RESULTS / ".config" / f"{digests.digest(text)}.json"
    if reads_only:
        return path
    with files.written(path):
        if path.is_file() and path.read_bytes() == text.encode():
            path.touch()
        else:  # none yet, or one that a power cut or an editor left
            with files.atomic(path) as aside:
                aside.write_text(text, encoding="utf-8")
        files.forget_unused(path.parent)
    return path
