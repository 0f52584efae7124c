"""Report of a run: page, figures, tables and contact sheets under results/report/{run}/."""

import shutil

from medbench import paths
from medbench.config import Config
from medbench.errors import MedbenchError
from medbench.report.params import Params, collect

KEYS = ("run",)


def params(config: Config, run: str) -> Params:
    """What the report shows of the configuration, labels included: a changed label reruns the report and nothing else.

    Raises MedbenchError for the name of another run.
    """
    if run != config.run.run:
        raise MedbenchError(f"run {run}", f"the configuration is of run {config.run.run!r}", "give the run's own --configfile")
    return collect(config)


def run(params: Params, run: str) -> None:
    """Write the report from the cells that exist; the page last, since its presence means that the report is whole.

    Raises MedbenchError for a table that is missing or breaks its contract. A cell that does not exist is no error: it is listed.
    """
    from medbench.report import answer, cautions, contact, export, figures, material, page, panels

    folder = paths.report(run)
    for part in ("figures", "tables", "contact"):  # nothing of an earlier run with other models or data sets may stay
        shutil.rmtree(folder / part, ignore_errors=True)
    found = material.read(params, run)
    warned = cautions.collect(found)
    tables = export.frames(found, warned)
    export.write_tables(tables, folder / "tables")
    gaps, heatmaps = panels.gap_figures(found), panels.panels(found)
    for figure in (*gaps, *(panel.figure for panel in heatmaps if panel.figure)):
        figures.write(figure, folder / "figures")
    sheets = [contact.collect(name, facts) for name, facts in params.datasets.items() if paths.images(name).exists()]
    for sheet in sheets:
        contact.write(sheet, folder / "contact" / f"{sheet.dataset}.png")
    export.write_facts(found, folder / "facts.json")
    paths.answer(run).write_text(answer.text(answer.parts(found)), encoding="utf-8")
    html = page.render(found, page.Parts(gaps, heatmaps, warned, sheets, list(tables)))
    partial = folder / ".index.html.partial"
    partial.write_text(html, encoding="utf-8")
    partial.replace(folder / "index.html")
