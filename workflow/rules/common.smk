# The validated configuration, the grid, and helpers named get_<what>.
import atexit
import functools
import gc
import inspect
import os
import re
import shlex
import sys

from snakemake.exceptions import WorkflowError

# Imports and large grids make millions of objects that stay: looking through them for garbage takes long, and at the end is in vain.
gc.set_threshold(500_000, 10, 100)
atexit.register(gc.freeze)

from medbench import cells, cli, command, config as configuration, paths, stages
from medbench.jobs import console, devices, exclusive, integrity, warm
from medbench.errors import MedbenchError

BASE = Path(workflow.basedir)

# `snakemake now` makes scores, intervals, gaps and the report of the cells that exist, and starts no model job: the rules
# that make cells are left out, and so are the cells that are not there. Only the command line tells this early. A job on a cluster
# reads these rules again with another command line, so the start hands the answer on in the environment. Behind `--configfile`
# Snakemake takes `now` for one more configuration: that is the root link of this name.
ASKED_NOW = config.pop("now", False) or "now" in sys.argv[1:]
if workflow.is_main_process:
    os.environ["MEDBENCH_NOW"] = "1" if ASKED_NOW else ""
NOW = bool(os.environ["MEDBENCH_NOW"])
REMOTE_JOBS = config.pop("remote_jobs", "local")  # or `cluster`: where a cluster's profile has remote models asked


envvars:
    "MEDBENCH_NOW",


try:
    cli.require_plain(BASE, "{}" + os.pathsep)  # the clone stands in search paths of jobs
    if workflow.is_main_process:
        exclusive.enter(workflow.output_settings.dryrun, stages.STAGES)
        configuration.require_whole(workflow.overwrite_configfiles, workflow.config_settings.config)
    CONFIG = command.as_started(configuration.load(config, BASE, "run configuration"))
    RESOLVED = cli.write_resolved(CONFIG, exclusive.only_reads(workflow.output_settings.dryrun))  # what every job of this start reads
    CELLS = cells.grid(CONFIG)
except MedbenchError as error:
    sys.exit(f"ERROR: {error}")

RUN = CONFIG.run.run


envvars:
    *cli.secrets(CONFIG),  # names of API keys: no rule, log or record holds their values


if NOW:
    CELLS = [cell for cell in CELLS if paths.predictions(*cell).exists()]
    if not CELLS:
        sys.exit(f"ERROR: no cell of run {RUN} exists yet; run `snakemake --cores all` first")


@functools.cache
def look(stage, names):
    """Once a job and start."""
    return stages.look(CONFIG, stage, names)


if workflow.is_main_process:  # once a start, not in each job of a cluster
    logger.info(cli.summary(CONFIG, CELLS))
    for line in cli.warnings(CONFIG, CELLS, NOW, look):
        logger.warning(line)


# A job replaces its shell, so that it is a child of Snakemake itself and dies with it (medbench.jobs.process). It finds this
# clone, and without conda the Python that runs Snakemake, whether or not an environment is activated.
def get_shell_prefix():
    exports = [
        f"PYTHONPATH={shlex.quote(str(BASE))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"{command.RESOLVED}={shlex.quote(str(RESOLVED))}",
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


# Where the run asks for it, and on CPUs alone, what models need is imported once for all jobs of this start, if any loads a model.
#
# With its default limit of 100 jobs a second Snakemake (9.27) looks for jobs again a second after each look, for ever, and each job that
# ends adds a look: after hundreds of jobs that takes half a core. A limit that a user asks for stays.
onstart:
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None
    here = (
        CONFIG.run.warm
        and workflow.local_exec
        and not workflow.touch
        and not workflow.deployment_settings.deployment_method
        and not devices.found()
    )
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


def get_names(stage, wildcards):
    """The names that choose a job; once the registries are found to admit its cell."""
    names = tuple(wildcards[key] for key in stages.get(stage).keys)
    if stages.get(stage).keys == cells.Cell._fields:
        require_cell(cells.Cell(*names))
    return names


@functools.cache
def require_cell(cell):
    """Once a cell: each of its jobs asks several times."""
    cells.check(CONFIG, cell)


@functools.cache
def examine(stage, names):
    """Once a job: what is wrong with what it made before is said, and made again."""
    seen = look(stage, names)
    if workflow.is_main_process and not workflow.touch:
        forced = [one for one in seen.findings if is_forced(one, stage, names)]
        if forced:
            outputs = [str(file) for file in stages.get(stage).outputs(*names)]
            workflow.dag.forcefiles.update(outputs)
            console.REASONS[outputs[0]] = "; ".join(map(str, forced))
        for finding in seen.findings:
            if finding.kind == "altered" or not is_forced(finding, stage, names):  # what is stale and made again has its reason said
                say_finding(finding)


def is_forced(finding, stage, names):
    """Whether what was found reruns the job: what is only stale not where `--rerun-triggers` says otherwise.

    A result without a run record is kept, unless its log says that its job failed, on a disk say that became read-only.
    """
    if finding.kind == "stale":
        return "PARAMS" in {trigger.name for trigger in workflow.rerun_triggers}
    return finding.kind == "altered" or console.error_of(paths.log(stage, *names), "")[0].startswith("ERROR: ")


SAID_FINDINGS = []


def say_finding(finding):
    """A line for each of the first; `verify` names them all."""
    SAID_FINDINGS.append(finding)
    if len(SAID_FINDINGS) <= console.SHOWN:
        logger.warning(f"{finding.kind.upper()}: {finding}")
    elif len(SAID_FINDINGS) == console.SHOWN + 1:
        logger.warning("and more: `python -m medbench verify` names them all")


def get_rerun_key(stage):
    """Function for `params`: the text that must stay equal for a finished job to stay finished."""
    return quickly(lambda wildcards: clearly(lambda: look(stage, get_names(stage, wildcards)).rerun_key))


def get_handed(stage):
    """Function for `params`: those of a run, quoted for the command line; nothing for a large run, since a command has a bound."""
    rerun_key = get_rerun_key(stage)

    def handed(wildcards):
        text = rerun_key(wildcards)
        return f"--fingerprint {shlex.quote(text)}" if len(text) < 50_000 else ""

    return quickly(handed)


def get_inputs(stage):
    """Function for `input`: what the stage says that a job reads; of a run the cells that are there, where no others are made."""

    def inputs(wildcards):
        declared, names = stages.get(stage), get_names(stage, wildcards)
        examine(stage, names)
        found = look(stage, names).inputs
        params = declared.params(CONFIG, *names) if NOW else ()
        if "cells" in getattr(params, "_fields", ()):
            found = declared.inputs(params._replace(cells=tuple(CELLS)), *names)
        for file in found:
            cli.require_plain(file)
        if NOW:
            return [file for file in found if file.exists() or is_made(file)]
        if not workflow.is_main_process:
            return found
        kept = stages.read_before(stage, names, found, lasting)
        return [ancient(file) if file in kept else file for file in found]

    return quickly(lambda wildcards: clearly(lambda: inputs(wildcards)))


@functools.cache
def lasting(dataset):
    """Once a data set and start."""
    return stages.lasting(CONFIG, dataset)


def is_made(file):
    """Whether `now` makes a file itself: all that follows from predictions."""
    return file.parts[1] in ("scores", "duplicates", "intervals", "gaps", "overlap", "report")


def get_outputs(stage):
    """For `output`: what the stage says that a job writes, with wildcards for its names."""
    declared = stages.get(stage)
    files = declared.outputs(*(f"{{{key}}}" for key in declared.keys))
    return [file if file.suffix else directory(file) for file in files]


def get_words(stage):
    """Function for `params`: a job's names as the command line has them."""
    return quickly(lambda wildcards: " ".join(get_names(stage, wildcards)))


def get_log(stage):
    """For `log`: one file a job."""
    return paths.log(stage, *(f"{{{key}}}" for key in stages.get(stage).keys))


def clearly(action):
    """The action's result; an expected error as one line, without a traceback through Snakemake."""
    try:
        return action()
    except MedbenchError as error:
        raise WorkflowError(f"ERROR: {error}") from None
    except KeyError as error:
        raise WorkflowError(f"ERROR: {error} stands in no registry; see {', '.join(CONFIG.run.registries.model_dump().values())}") from None


if NOW and workflow.is_main_process:  # no rule makes again what cells were made from, but what is wrong with it is said
    for made_by, its_names in stages.jobs(CONFIG, [cell._asdict() for cell in CELLS]):
        its_output = stages.get(made_by).outputs(*its_names)[0]
        if its_output.exists() and not is_made(its_output):
            try:
                for finding in look(made_by, its_names).findings:
                    say_finding(finding)
            except MedbenchError:  # left over from an entry that was another one: no job of this run
                continue


def get_needs(stage, wildcards):
    """What a job asks of a scheduler at its first try."""
    return clearly(lambda: needs_of(stage, get_names(stage, wildcards)))


@functools.cache
def needs_of(stage, names):
    """Once a job: memory, time and GPUs are asked for one by one."""
    return stages.get(stage).needs(CONFIG, *names)


def get_gpus(stage):
    """Function for `resources: gpu`."""
    return quickly(lambda wildcards: get_needs(stage, wildcards).gpus)


def get_memory(stage):
    """Function for `resources: mem_mb`: twice as much at a retry."""
    return quickly(lambda wildcards, attempt: get_needs(stage, wildcards).memory_mb << (attempt - 1))


def get_runtime(stage):
    """Function for `resources: runtime` [min]: twice as much at a retry, a week at most."""
    return quickly(lambda wildcards, attempt: min(get_needs(stage, wildcards).minutes << (attempt - 1), 7 * 24 * 60))
