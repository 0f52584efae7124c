"""The command line: one verb a stage, named like its rule. `python -m medbench <stage> --help` runs any of them by hand."""

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from medbench import config as configuration
from medbench import paths, provenance, runtime
from medbench.errors import MedbenchError
from medbench.stages import STAGES

ROOT = Path(__file__).parent.parent  # the clone: registries are found there from any working directory


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit code 0; 2 with one line for an expected error; anything else is a bug and shows a traceback."""
    parser = argparse.ArgumentParser(prog="medbench", description="Specialist or adapted generalist? One verb a stage.")
    parser.add_argument("--version", action="version", version=f"medbench {importlib.import_module('medbench').__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="stage")
    given = (sys.argv[1:] if argv is None else argv)[:1]
    own = [name for name in STAGES if given == [name]]  # a job imports its own stage only
    for name in own or STAGES:
        _add_stage(verbs, name)
    if not own:
        from medbench import tools

        tools.add_verbs(verbs)
    args = parser.parse_args(argv)
    try:
        args.execute(args)
    except MedbenchError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    return 0


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--configfile`, as Snakemake understands it, and the resolved file that the rules pass."""
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="laid over config/config.yaml; later files win")
    parser.add_argument("--resolved", type=Path, help=argparse.SUPPRESS)


def read_config(args: argparse.Namespace) -> configuration.Config:
    """The configuration a verb was called with."""
    if args.resolved:
        return configuration.from_resolved(args.resolved)
    return configuration.from_files([ROOT / "config" / "config.yaml", *args.configfile], ROOT)


def stage_module(name: str) -> Any:
    """The module of a stage."""
    return importlib.import_module(f"medbench.stages.{name}")


def job(config: configuration.Config, stage: str, names: tuple[str, ...]) -> tuple[Any, str]:
    """Parameters of one job, and the text that the rule tracks for it."""
    module = stage_module(stage)
    params = module.params(config, *names)
    own = module.modules(params) if hasattr(module, "modules") else ()
    return params, provenance.tracked(params, (module.__name__, *own))


def outputs(stage: str, names: tuple[str, ...]) -> list[Path]:
    """The files one job writes, the one that its run record stands beside first."""
    made: dict[str, Any] = {
        "pretrain": lambda model: [paths.model_folder(model)],
        "prepare": lambda dataset: [paths.card(dataset), *paths.data(dataset)],
        "adapt": paths.adapter_files,
        "gaps": paths.gaps,
        "report": lambda run: [paths.report(run) / "index.html"],
    }
    files = made.get(
        stage,
        getattr(paths, {"embed": "embeddings", "predict": "predictions", "score": "scores", "interval": "intervals"}.get(stage, stage)),
    )(*names)
    return files if isinstance(files, list) else [files]


def _add_stage(verbs: Any, name: str) -> None:
    module = stage_module(name)
    summary = (module.__doc__ or "").strip().splitlines()[0]
    parser = verbs.add_parser(name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for key in module.KEYS:
        parser.add_argument(key, type=_slug)
    add_config_options(parser)
    parser.set_defaults(execute=lambda args: _run_stage(name, tuple(getattr(args, key) for key in module.KEYS), args))


def _slug(value: str) -> str:
    try:
        return configuration.Slug.__metadata__[0].func(value)  # type: ignore[attr-defined,no-any-return]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run_stage(name: str, names: tuple[str, ...], args: argparse.Namespace) -> None:
    runtime.die_with_parent()
    started = time.time()
    config = read_config(args)
    params, tracked = job(config, name, names)
    stage_module(name).run(params, *names)
    device = str(runtime.device()) if "torch" in sys.modules else "cpu"
    provenance.write_run_record(paths.run_record(outputs(name, names)[0]), name, names, tracked, started, device)


def write_resolved(config: configuration.Config) -> Path:
    """Write the validated run and registries as one file named by its digest: all jobs of a start read it, so no two can disagree."""
    text = provenance.canonical(configuration.dump(config))
    path = paths.RESULTS / ".config" / f"{provenance.digest(text)}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return path
