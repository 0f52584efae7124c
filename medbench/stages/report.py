"""Report of a run: page, figures, tables and contact sheets under results/report/{run}/."""

from pathlib import Path

from medbench import paths, stages, tasks
from medbench.config import Config
from medbench.errors import MedbenchError, visible
from medbench.jobs import files, partial
from medbench.jobs.stage import Needs, Stage
from medbench.report.params import Params, collect


def params(config: Config, run: str) -> Params:
    """What the report shows of the configuration, labels included: a changed label reruns the report and nothing else.

    Raises MedbenchError for the name of another run.
    """
    if run != config.run.run:
        raise MedbenchError(f"run {run}", f"the configuration is of run {config.run.run!r}", "give the run's own --configfile")
    return collect(config)


def inputs(params: Params, run: str) -> list[Path]:
    """Everything of the run."""
    cells = [cell for cell in params.cells if str(cell) not in params.left_out]
    intervals = [paths.intervals(*cell) for cell in cells]
    datasets = dict.fromkeys(cell.dataset for cell in cells)
    data = [file for dataset in datasets for file in (*paths.data(dataset), paths.duplicates(dataset))]
    judged = [paths.judgements(*cell) for cell in params.cells if params.judges and tasks.get(params.datasets[cell.dataset].task).judged]
    return [
        *intervals,
        *data,
        *paths.gaps(run),
        paths.controls(run),
        *paths.lettered(run),
        paths.overlap(run),
        *judged,
        *map(paths.calibration, params.judges),
    ]


def run(params: Params, run: str) -> None:
    """Write the report from the cells that exist, aside, and put it in place whole: a report that cannot be made leaves the old one.

    Raises MedbenchError for a table that is missing or breaks its contract. A cell that does not exist is no error: it is listed.
    """
    from medbench.report import answer, cautions, export, figures, page, panels, results, sample_sheet

    with partial.anew(f"report-{run}", f"report {run}") as folder:
        found = results.read(params, run, lambda cell: stages.way(cell._asdict()))
        warned = cautions.collect(found)
        tables = export.frames(found, warned)
        export.write_tables(tables, folder / "tables")
        gaps, heatmaps, judged = panels.gap_figures(found), panels.panels(found), panels.judged_figures(found)
        (folder / "figures").mkdir()
        for figure in (*gaps, *(panel.figure for panel in heatmaps if panel.figure), *judged):
            figures.write(figure, folder / "figures")
        sheets = [sample_sheet.collect(name, facts) for name, facts in params.datasets.items() if paths.images(name).exists()]
        (folder / "contact").mkdir()
        for sheet in sheets:
            sample_sheet.write(sheet, folder / "contact" / f"{sheet.dataset}.png")
        export.write_facts(found, folder / "facts.json")
        (folder / "answer.txt").write_text(visible(answer.text(answer.parts(found), params, answer.advice(found))), encoding="utf-8")
        html = page.render(found, page.Parts(gaps, heatmaps, judged, warned, sheets, list(tables)))
        (folder / "index.html").write_text(html, encoding="utf-8")
        files.publish(folder, [*reversed(paths.report_files(run))])  # the page last: where there is one, the report is whole


STAGE = Stage(
    name="report",
    keys=("run",),
    params=params,
    inputs=inputs,
    outputs=paths.report_files,
    run=run,
    uses=lambda params: tuple(f"medbench.tasks.{name}" for name in sorted({facts.task for facts in params.datasets.values()})),
    needs=lambda config, *names: Needs(memory_mb=2000, minutes=60),
)
