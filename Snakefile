# medbench: specialist, or adapted generalist? The grid of data sets x models x modes, and what is made of it.
# Here stand the configuration, the rules in the order of execution, and the targets.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.16")


configfile: Path(workflow.basedir, "config", "config.yaml")


include: "workflow/rules/common.smk"


if not NOW:  # what makes cells; `now` takes the cells that are there

    include: "workflow/rules/models.smk"
    include: "workflow/rules/data.smk"
    include: "workflow/rules/embed.smk"
    include: "workflow/rules/adapt.smk"
    include: "workflow/rules/predict.smk"
    include: "workflow/rules/judge.smk"


include: "workflow/rules/score.smk"
include: "workflow/rules/gaps.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/more.smk"


localrules:
    all,
    now,


rule all:
    default_target: True
    input:
        paths.report(RUN) / "index.html",
        [file(*cell) for cell in CELLS for file in (paths.predictions, paths.intervals)],  # deleted ones are made again, report or not


rule now:
    input:
        paths.report(RUN) / "index.html",
