# The validated configuration, the grid, and helpers named get_<what>.
import gc
import inspect
import os
import shlex
import sys

from snakemake.exceptions import WorkflowError

from medbench import cells, cli, config as configuration, console, devices, exclusive, needs, paths, warm
from medbench.errors import MedbenchError

BASE = Path(workflow.basedir)
gc.set_threshold(100_000, 50, 100)  # a large grid makes millions of objects that stay: looking through them is a sixth of a start

# `snakemake now` makes scores, intervals, gaps and the report of the cells that exist, and starts no model job: the rules
# that make cells are left out, and so are the cells that are not there. Only the command line tells this early. A job on a cluster
# reads these rules again with another command line, so the start hands the answer on in the environment. Behind `--configfile`
# Snakemake takes `now` for one more configuration: that is the root link of this name.
ASKED_NOW = config.pop("now", False) or "now" in sys.argv[1:]
if workflow.is_main_process:
    os.environ["MEDBENCH_NOW"] = "1" if ASKED_NOW else ""
NOW = bool(os.environ["MEDBENCH_NOW"])


envvars:
    "MEDBENCH_NOW",


try:
    if workflow.is_main_process:
        exclusive.enter(dry_run=workflow.output_settings.dryrun)
    CONFIG = configuration.load(config, BASE, "run configuration")
    RESOLVED = cli.write_resolved(CONFIG)  # what every job of this start reads
    CELLS = cells.grid(CONFIG)
except MedbenchError as error:
    sys.exit(f"ERROR: {error}")

RUN = CONFIG.run.run

if NOW:
    CELLS = [cell for cell in CELLS if paths.predictions(*cell).exists()]
    if not CELLS:
        sys.exit(f"ERROR: no cell of run {RUN} exists yet; run `snakemake --cores all` first")


if workflow.is_main_process:  # once a start, not in each job of a cluster
    logger.info(cli.summary(CONFIG, CELLS))
    for line in cli.warnings(CONFIG, CELLS, NOW):
        logger.warning(line)


# A job replaces its shell, so that it is a child of Snakemake itself and dies with it (medbench.runtime). It finds this
# clone, and without conda the Python that runs Snakemake, whether or not an environment is activated.
def get_shell_prefix():
    exports = [
        f"PYTHONPATH={shlex.quote(str(BASE))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"{cli.RESOLVED}={shlex.quote(str(RESOLVED))}",
    ]
    if not workflow.deployment_settings.deployment_method:
        exports.append(f"PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH")
    return f"set -euo pipefail; export {' '.join(exports)}; exec ".replace("{", "{{").replace("}", "}}")


shell.prefix(get_shell_prefix())


def get_answer():
    """The last lines of a start that made the report, or found it made: its verdicts and its page."""
    asked = any(job.rule.name == "report" for job in workflow.dag.jobs)
    return [*paths.answer(RUN).read_text().splitlines(), f"Page: {paths.report(RUN) / 'index.html'}"] if asked else []


SAID = console.install(logger, workflow.output_settings, get_answer) if workflow.is_main_process else None


onsuccess:
    if SAID:
        SAID.succeeded(log)


onerror:
    if SAID:
        SAID.gave_up(log)


# On CPUs, what models need is imported once for all jobs of this start, if any loads a model.
onstart:
    here = workflow.local_exec and not workflow.touch and not workflow.deployment_settings.deployment_method and not devices.found()
    if here and any(job.rule.name in ("pretrain", "prompts") or job.resources.get("gpu") for job in workflow.dag.needrun_jobs()):
        warm.start()


# A workstation runs as many GPU jobs at a time as it has GPUs; on a cluster the scheduler decides. Without a GPU there is no limit,
# so that jobs share the CPU's cores.
resource_scopes:
    gpu="local",


if workflow.is_main_process and "gpu" not in workflow.global_resources and (found := len(devices.found())):
    workflow.register_resource("gpu", found)


wildcard_constraints:
    dataset=paths.SLUG.pattern,
    model=paths.SLUG.pattern,
    mode=paths.SLUG.pattern,
    run=paths.SLUG.pattern,


def quickly(function):
    """The function with its signature beside it: Snakemake asks for it at every call, and works it out anew each time."""
    function.__signature__ = inspect.signature(function)
    return function


def get_params(stage, *keys):
    """Function for `params`: the text that must stay equal for a finished job to stay finished."""

    def tracked(wildcards):
        names = tuple(wildcards[key] for key in keys)
        return clearly(lambda: cli.watched(CONFIG, stage, names))

    return quickly(tracked)


def get_handed(stage, *keys):
    """Function for `params`: those of a run, quoted for the command line; nothing for a large run, since a command has a bound."""
    tracked = get_params(stage, *keys)

    def handed(wildcards):
        text = tracked(wildcards)
        return f"--tracked {shlex.quote(text)}" if len(text) < 50_000 else ""

    return quickly(handed)


def clearly(action):
    """The action's result; an expected error as one line, without a traceback through Snakemake."""
    try:
        return action()
    except MedbenchError as error:
        raise WorkflowError(f"ERROR: {error}") from None
    except KeyError as error:
        raise WorkflowError(f"ERROR: {error} stands in no registry; see {', '.join(CONFIG.run.registries.model_dump().values())}") from None


def get_cell(wildcards):
    """The cell that a job belongs to, once the registries are found to admit it."""
    cell = cells.Cell(wildcards.dataset, wildcards.model, wildcards.mode)
    clearly(lambda: cells.check(CONFIG, cell))
    return cell


@quickly
def get_checkpoint(wildcards):
    """A mini model's folder, which the workflow makes; nothing for a checkpoint from the hub or for a baseline."""
    model = clearly(lambda: CONFIG.models[wildcards.model])
    return [paths.model_folder(wildcards.model)] if model.pretrain else []


def get_gpus(stage, *keys):
    """Function for `resources: gpu`: how many the stage asks for."""
    return quickly(lambda wildcards: clearly(lambda: cli.gpus(CONFIG, stage, tuple(wildcards[key] for key in keys))))


def get_memory(stage, *keys):
    """Function for `resources: mem_mb`: by the size of the checkpoint, twice as much at a retry."""
    return quickly(
        lambda wildcards, attempt: clearly(lambda: needs.memory_mb(CONFIG, stage, {key: wildcards[key] for key in keys}, attempt))
    )


def get_runtime(stage, *keys):
    """Function for `resources: runtime` [min]: by task and size, twice as much at a retry."""
    return quickly(lambda wildcards, attempt: clearly(lambda: needs.minutes(CONFIG, stage, {key: wildcards[key] for key in keys}, attempt)))


def get_index_files(wildcards):
    """Raw files whose change must prepare a data set anew (labels.csv, shards); none where it is generated."""
    return clearly(lambda: cli.stage_module("prepare").index_files(CONFIG, wildcards.dataset))


@quickly
def get_adapt_input(wildcards):
    """Features of every split for a probe; samples, images and the checkpoint for LoRA. Never the test split."""
    cell = get_cell(wildcards)
    samples = [paths.samples(cell.dataset, split) for split in ("train", "val")]
    if getattr(CONFIG.modes[cell.mode], "clean", False):
        samples.append(paths.twins(cell.dataset))
    if CONFIG.modes[cell.mode].kind == "probe":
        return [*samples, paths.embeddings(cell.dataset, cell.model)]
    return [*samples, paths.images(cell.dataset), *get_checkpoint(wildcards)]


@quickly
def get_predict_input(wildcards):
    """What a cell's answers follow from: test samples, and features with prompts or adapter, or the model itself."""
    cell = get_cell(wildcards)
    mode, kind, task = CONFIG.modes[cell.mode].kind, CONFIG.models[cell.model].kind, CONFIG.datasets[cell.dataset].task
    files = [paths.samples(cell.dataset, "test")]
    if mode != "zero-shot":
        files += paths.adapter_files(*cell)
    if task == "vqa" and kind == "baseline":  # fitted on what train asks and answers, without an image
        return [*files, paths.samples(cell.dataset, "train")]
    if task == "diagnosis" and mode in ("zero-shot", "probe"):
        files.append(paths.embeddings(cell.dataset, cell.model))
        return [*files, paths.prompts(cell.dataset, cell.model)] if mode == "zero-shot" else files
    return [*files, paths.images(cell.dataset), *get_checkpoint(wildcards)]


@quickly
def get_interval_input(wildcards):
    """What a cell's metrics follow from: of a diagnosis its predictions, of questions their scores too."""
    cell = get_cell(wildcards)
    files = [paths.twins(cell.dataset), paths.predictions(*cell)]
    return [*files, paths.scores(*cell)] if CONFIG.datasets[cell.dataset].task == "vqa" else files


def get_run_twins(wildcards):
    """Table `twins` of the run's data sets."""
    return [paths.twins(dataset) for dataset in dict.fromkeys(cell.dataset for cell in CELLS)]


def get_run_data(wildcards):
    """All tables of the run's data sets."""
    return [file for dataset in dict.fromkeys(cell.dataset for cell in CELLS) for file in paths.data(dataset)]
