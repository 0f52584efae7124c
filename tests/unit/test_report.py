"""The report of a made-up run: every file, the warnings, absent cells, hostile labels, equal inputs give equal bytes."""

import csv
import hashlib
import html
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medbench import config, paths, stages, tables
from medbench.cells import Cell
from medbench.errors import MedbenchError
from medbench.report import answer, cautions, export, figures, leak_free, page, panels, results, served, words
from medbench.report import judged as judging
from medbench.report.params import JudgeFacts
from medbench.stages import gaps, report
from tests.unit import report_run

ROOT = Path(__file__).resolve().parents[2]
FAILED, NEVER_RUN = Cell("patho", "siglip", "lora"), Cell("radio", "clip", "lp")
HOSTILE = '<script>alert(1)</script> & "x" \' </svg>]]>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in which one cell failed and another never ran."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        chosen = report_run.params()
        report_run.build(chosen, (FAILED, NEVER_RUN))
        report_run.fail(FAILED, "adapt", "epoch 1", "ERROR: cell patho/siglip/lora: loss is nan; lower the learning rate", "leaving")
        report.run(chosen, report_run.RUN)
    return root / paths.report(report_run.RUN)


@pytest.fixture
def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> results.Material:
    monkeypatch.chdir(folder.parents[2])
    return results.read(report_run.params(), report_run.RUN, way)


def way(cell: Cell) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    """The jobs that lead to a cell."""
    return stages.way(cell._asdict())


def text(folder: Path) -> str:
    """The page's words, without tags and styles."""
    page = re.sub(r"<style>.*?</style>", "", (folder / "index.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def section(folder: Path, name: str) -> str:
    """The words of one section of the page."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    part = page.split(f'<h2 id="{name}">')[1].split("<h2 ")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def test_writes_every_file(folder: Path) -> None:
    names = set(digests(folder))
    plots = ["gaps-auroc", "gaps-closed-accuracy", *(f"heatmap-auroc-{mode}" for mode in ("ots", "lp", "lora"))]
    plots += [f"heatmap-closed-accuracy-{mode}" for mode in ("ots", "lora")]
    listed = [
        "metrics",
        "verdicts",
        "gaps",
        "confirmatory",
        "pooled",
        "baselines",
        "cells",
        "absent",
        "served",
        "cautions",
        "overlap",
        "prompt-sensitivity",
        "controls",
    ]
    expected = {f"figures/{name}.{kind}" for name in plots for kind in ("svg", "png")}
    expected |= {f"tables/{name}.{kind}" for name in listed for kind in ("parquet", "csv")}
    expected |= {f"contact/{name}.png" for name in (*report_run.DIAGNOSIS, "vqa")} | {"index.html", "answer.txt", "facts.json", "cost.csv"}
    assert names == expected


def test_page_needs_nothing_beside_it(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<link" not in page and "@import" not in page
    assert set(re.findall(r'src="([a-z]+:)', page)) == {"data:"}
    assert not re.findall(r"url\((?!#)", page)
    assert all(not target.startswith(("http", "//")) for target in re.findall(r'href="([^"]*)"', page))


def test_links_lead_somewhere(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'<a href="([^"]+)"', page):
        assert target[1:] in ids if target.startswith("#") else (folder / target).is_file()


def test_headings_are_in_order(folder: Path) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)", (folder / "index.html").read_text(encoding="utf-8"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_figures_and_tables_are_described(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r'role="img" aria-label="[^"]{40,}"', page)) == len(list((folder / "figures").glob("*.svg")))
    assert page.count("<table>") == page.count("<table><caption>")
    assert all('alt="' in image for image in re.findall(r"<img [^>]*>", page))
    assert not re.search(r"<th(?![^>]*scope)[ >]", page.replace("<thead>", ""))


def test_answer_comes_first_and_names_verdicts(folder: Path, found: results.Material) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    order = ["answer", "gaps", "reached", "cautions", "images", "overlap", "absent", "facts"]
    assert re.findall(r'<h2 id="([a-z]+)"', page) == order
    parts = answer.parts(found)
    titles = ["RQ1, off the shelf", *(f"{question}, {mode}" for question in ("RQ2", "RQ3", "RQ4") for mode in ("linear probe", "LoRA"))]
    assert [part.title for part in parts] == titles
    shown = section(folder, "answer")
    for line in (line for part in parts for line in part.lines):
        assert f"{line.family} {line.dataset} {line.verdict} {line.gap} {line.interval}" in shown
    assert "Pooled: clip over 3 data sets: +0.031 [\N{MINUS SIGN}0.020, +0.080]." in shown


def test_fundus_has_no_verdict_but_a_reason(found: results.Material) -> None:
    lines = [line for part in answer.parts(found) for line in part.lines if line.dataset == "Fundus phantom"]
    assert lines and all(line.verdict == "no verdict" and line.p == words.NOTHING and "fewer than 30" in line.note for line in lines)


def test_the_answer_says_why_there_is_no_verdict(folder: Path) -> None:
    assert "without a verdict (12 effective groups, fewer than 30)" in (folder / "answer.txt").read_text()


def test_a_question_that_is_not_asked_has_its_reason(folder: Path) -> None:
    params = report_run.params()
    assert answer.unasked(params) == []
    stranger = params._replace(models={name: model._replace(in_domain=()) for name, model in params.models.items()})
    sets = "Chest X-ray phantom, Histology phantom, Dermoscopy phantom and Fundus phantom"
    nobody = f"no clip specialist knows {sets}, no siglip specialist knows {sets} and no llava specialist knows Chest questions."
    assert answer.unasked(stranger) == [f"{question} is not asked: {nobody}" for question in ("RQ1", "RQ2", "RQ4")]
    alone = params._replace(models={name: model for name, model in params.models.items() if name in ("clip", "siglip", "medsiglip")})
    assert answer.unasked(alone) == []  # siglip has both
    off = params._replace(cells=tuple(cell for cell in params.cells if cell.mode == "ots"))
    assert answer.unasked(off) == [f"{question} is not asked: no model is adapted." for question in ("RQ2", "RQ3", "RQ4")]
    assert "RQ2 sets an adapted generalist against a specialist as it is" in section(folder, "answer")
    assert answer.text([], off).startswith("RQ2 is not asked")


def test_near_alpha_the_third_digit_of_p_is_shown() -> None:
    """There stood 0.050 beside a verdict."""
    assert [words.p_value(p) for p in (0.04984, 0.0312, 0.41, 1.0, 0.0004, None)] == [
        "0.0498", "0.0312", "0.410", "1.00", "<0.001", words.NOTHING,
    ]  # fmt: skip


def test_a_row_says_what_is_corrected_and_what_is_within_the_margin(folder: Path, found: results.Material) -> None:
    shown = section(folder, "answer")
    for expected in ("95% interval (of the two, not corrected)", "p (of all, Holm)", "Minimum detectable difference (of the verdict)"):
        assert expected in shown
    ahead = (
        found.gaps.filter(pl.col("question") == "rq1")
        .head(1)
        .with_columns(verdict=pl.lit("specialist", dtype=found.gaps.schema["verdict"]), p_holm=0.001, p_equivalent=0.01)
    )
    (part,) = answer.parts(found._replace(gaps=ahead))
    assert part.lines[0].note == "ahead, within the margin"
    assert part.summary == "Of 1 comparison, the specialist leads in 1 (clip on Chest X-ray phantom; 1 within the margin)."


def test_logit_intervals_are_shown_and_percentiles_kept(found: results.Material) -> None:
    """An AUROC of 1.000 had [1.000, 1.000] on the page."""
    is_logit = pl.col("method") == "logit"
    high = [pl.when(is_logit).then(value).otherwise(1.0).alias(name) for name, value in (("estimate", 1.0), ("low", 0.912), ("high", 1.0))]
    material = found._replace(metrics=found.metrics.with_columns(high))
    assert cautions.solved(material).places[0].endswith("AUROC 1.000 [0.912, 1.000]")
    assert "percentile" in set(export.frames(found, [])["metrics"]["method"])
    assert {line.values[0] for line in page._open(material)} == {"1.000 [0.912, 1.000]"}
    of_judges = material.metrics.with_columns(pl.col("metric").replace("token_recall", "judge_score"))
    assert {line.score for line in judging.scores(found.judged, found.params, of_judges)} == {"100.0 [91.2, 100.0]"}


def test_a_comparison_without_sides_shows_its_reason(found: results.Material) -> None:
    none = {name: pl.lit(None, dtype=found.gaps.schema[name]) for name in ("specialist", "gap", "low", "high", "verdict", "p_holm")}
    row = found.gaps.head(1).with_columns(**none, generalist=pl.lit("absent"), reason=pl.lit("radio/clip/ots: no intervals"))
    (line,) = answer.parts(found._replace(gaps=row))[0].lines
    assert (line.verdict, line.gap, line.interval, line.pair, line.note) == (
        "no verdict",
        words.NOTHING,
        "",
        "",
        "radio/clip/ots: no intervals",
    )


def test_exploratory_and_global_rows_decide_nothing(found: results.Material) -> None:
    rows = found.gaps.head(1)
    secondary = rows.with_columns(metric=pl.lit("accuracy"), verdict=pl.lit(None, dtype=rows.schema["verdict"]))
    view = rows.with_columns(question=pl.lit("global-rq2", dtype=rows.schema["question"]), family=pl.lit("all"))
    more = found._replace(gaps=pl.concat([found.gaps, secondary, view]))
    assert answer.deciding(more).equals(answer.deciding(found))


def test_open_questions_stand_on_the_page(folder: Path) -> None:
    """Their metrics have no verdict, but values: a set of open questions alone has nothing else."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    values = pl.read_parquet(folder / "tables/metrics.parquet").filter(
        method="logit", metric="token_recall", scoring="strict", subset="open"
    )
    assert values.height and "<h3>Open questions</h3>" in page
    part = page.split("<h3>Open questions</h3>")[1].split("</table>")[0]
    assert part.count("<tr>") == values.height + 1
    for row in values.to_dicts():
        assert row["model_label"] in part and f"{row['estimate']:.3f} [" in part


def test_heatmap_shows_values_marks_and_baselines(folder: Path) -> None:
    values = pl.read_parquet(folder / "tables/metrics.parquet").filter(method="percentile", metric="auroc", subset="all")
    svg = (folder / "figures/heatmap-auroc-lora.svg").read_text(encoding="utf-8")
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    chosen = values.filter((pl.col("mode") == "lora") | (pl.col("role") == "baseline"))["estimate"].to_list()
    assert sorted(text for text in texts if re.fullmatch(r"\d\.\d{3}", text or "")) == sorted(f"{value:.3f}" for value in chosen)
    assert texts.count("absent") == 1 and "Raw pixels (16x16), baseline" in texts
    assert svg.count(f'stroke="{figures.INK}"') == 4  # two specialists on two data sets


def test_gap_figure_has_a_line_for_every_gap(folder: Path, found: results.Material) -> None:
    drawn = {"gaps-auroc": "auroc", "gaps-closed-accuracy": "closed_accuracy"}
    for name, metric in drawn.items():
        gaps = answer.deciding(found).filter(pl.col("metric") == metric)
        svg = (folder / f"figures/{name}.svg").read_text(encoding="utf-8")
        for row in gaps.to_dicts():
            assert f">{words.signed(row['gap'])} {row['verdict'] or 'no verdict'}<" in svg


def test_the_gap_figure_is_described_with_its_level_and_without_intervals_that_are_not_there(found: results.Material) -> None:
    """An undefined interval counted as one around zero, and every level was 95%."""
    bounds = {"low": pl.Series([-0.1, 0.1, -0.3, None]), "high": pl.Series([0.1, 0.2, -0.2, None])}
    gaps = answer.deciding(found).filter(pl.col("metric") == "auroc").head(4).with_columns(**bounds)
    material = found._replace(gaps=gaps, params=found.params._replace(statistics=found.params.statistics | {"level": 0.9}))
    (figure,) = panels.gap_figures(material)
    assert "with 90% intervals, for 4 comparisons: 1 wholly below zero (specialist higher), 1 wholly above zero" in figure.alt
    assert figure.alt.split(", ")[-2:] == ["1 with zero inside", "1 without an interval. tables/gaps.csv holds the same numbers."]


def test_the_facts_say_the_resamples_that_were_drawn(found: results.Material) -> None:
    """The primary metric is of the more of the two."""
    more = found._replace(params=found.params._replace(statistics=found.params.statistics | {"n_resamples": 20_000}))
    assert [dict(page._facts(one))["Primary metrics"].split(" resamples")[0] for one in (found, more)] == ["10,000", "20,000"]


def test_the_page_says_which_images_are_not_as_their_files_have_them(folder: Path) -> None:
    found = section(folder, "images")
    assert "Of 9 images, converted when they were read: 1 image: format DICOM; 2 images: format DICOM, palette." in found
    alone = "by what an image alone would need, 9 bits: 1 image; 12 bits: 8 images"
    assert f"All integers of more than 8 bits have one scale: 12 bits, the largest value is 3071 ({alone})." in found
    assert "All floats of more than 8 bits have one scale: from -1.5 to 2." in found
    assert found.count("converted when they were read") == 1


def test_cautions_name_untrustworthy_tasks(folder: Path) -> None:
    shown = section(folder, "cautions")
    for expected in (
        "Fundus phantom: Raw pixels (16x16) reaches AUROC 0.960 [0.900, 1.000]",
        "Every model is near chance Every interval contains 0.5.",
        "Dermoscopy phantom: 12 cells",
        "Chest X-ray phantom: 4 of 120 images of test (exact-pixels) also in train of Chest X-ray phantom",
        "Fundus phantom: 12.3 effective of 18 groups (unit: group)",
        "Histology phantom: 2 rows dropped, broken image (first: labels.csv row 17: does not decode)",
        "Histology phantom, leak-free samples: 21 leak-free samples, fewer than 30 (auroc;",
        "off the shelf: accuracy, balanced accuracy and F1",
        "transformers: 5.17.0 (11 cells) and 5.23.0 (45 cells)",
    ):
        assert expected in shown


def test_samples_without_a_score_are_named(found: results.Material) -> None:
    """A model that scored 20 of 24 samples stood beside the others without a word; of questions the closed ones alone decide."""
    assert not cautions.unscored(found).places
    some = (
        pl.when(pl.col("model").is_in(["clip", "llava"]), pl.col("mode") == "ots").then(20).otherwise("n").cast(found.metrics.schema["n"])
    )
    material = found._replace(metrics=found.metrics.with_columns(n=some), gaps=found.gaps.with_columns(n_pair=pl.lit(20, pl.Int32)))
    places = cautions.unscored(material).places
    assert places == [f"{label}, Mini clip, off the shelf: 20 of 24 test samples" for label, *_ in report_run.DIAGNOSIS.values()]
    lines = [line for part in answer.parts(material) for line in part.lines]
    assert all(line.pair.endswith(", on 20 of 24 test samples") is (line.family != "llava") for line in lines)
    assert not any("test sample" in line.pair for part in answer.parts(found) for line in part.lines)


def test_leak_free_samples_are_counted_and_stand_beside_all(folder: Path, found: results.Material) -> None:
    shown = section(folder, "overlap")
    assert (
        "Chest X-ray phantom: 20 of 24 are leak-free; Histology phantom: 14 of 24 are leak-free; Dermoscopy phantom: 24 of 24 are leak-free"
        in shown
    )
    lines = leak_free.lines(found)
    assert {line.label for line in lines} == {"Chest X-ray phantom", "Histology phantom"}  # where any duplicate is
    assert len(lines) == 24  # 13 cells each, less the two that are absent
    assert {line.leak_free for line in lines if line.label == "Histology phantom"} == {"\N{EN DASH} (21 leak-free samples, fewer than 30)"}
    one = next(line for line in lines if line.label == "Chest X-ray phantom")
    assert (one.model, one.mode, one.metric, one.n) == ("Mini clip", "off the shelf", "AUROC", "240 and 240")
    assert float(one.everything[:5]) - float(one.leak_free[:5]) == pytest.approx(0.01, abs=0.0011)
    assert f"{one.label} {one.model} {one.mode} {one.metric} {one.everything} {one.leak_free}" in shown


def test_a_run_without_duplicates_says_so_in_one_sentence(found: results.Material) -> None:
    none = found._replace(leak_free={name: results.LeakFree(24, 24) for name in found.leak_free})
    assert leak_free.lines(none) == [] and [count.leak_free for count in leak_free.counts(none)] == [24] * 5


def test_equal_scores_are_cautioned(found: results.Material) -> None:
    assert cautions.equal_scores(found).places == []
    place = (pl.col("dataset") == "radio") & (pl.col("model") == "clip") & (pl.col("mode") == "ots")
    half = [pl.when(place).then(0.5).otherwise(pl.col(name)).alias(name) for name in ("estimate", "low", "high")]
    (said,) = cautions.equal_scores(found._replace(metrics=found.metrics.with_columns(half))).places
    assert said == "Chest X-ray phantom: Mini clip, off the shelf"


def test_what_lies_below_chance_is_cautioned(found: results.Material) -> None:
    assert cautions.below_chance(found).places == []
    place = (pl.col("dataset") == "radio") & (pl.col("model") == "clip") & (pl.col("mode") == "ots")
    low = [
        pl.when(place).then(value).otherwise(pl.col(name)).alias(name) for name, value in (("estimate", 0.03), ("low", 0.0), ("high", 0.1))
    ]
    caution = cautions.below_chance(found._replace(metrics=found.metrics.with_columns(low)))
    assert caution.places == ["Chest X-ray phantom, Mini clip, off the shelf: AUROC 0.030 [0.000, 0.100]"]
    assert "prompts or labels swapped?" in caution.meaning


def test_without_intervals_nothing_is_said_of_them(found: results.Material) -> None:
    """As under 10 effective groups."""
    none = [pl.lit(None, dtype=pl.Float64).alias(name) for name in ("sd", "low", "high")]
    material = found._replace(metrics=found.metrics.with_columns(none))
    for check in (cautions.at_chance, cautions.not_above_baseline, cautions.equal_scores, cautions.below_chance):
        assert check(material).places == []
    assert {worth.models for worth in cautions.worths(material)} == {0}


def test_undefined_resamples_are_cautioned(found: results.Material) -> None:
    assert cautions.unstable(found).places == []
    many = pl.when((pl.col("dataset") == "radio") & (pl.col("mode") == "ots")).then(51).otherwise(50).alias("n_undefined")
    places = cautions.unstable(found._replace(metrics=found.metrics.with_columns(many))).places
    assert places[0] == "Chest X-ray phantom, Mini clip, off the shelf: 51 of 1,000 resamples" and len(places) == 4


def test_a_sound_data_set_is_not_cautioned(found: results.Material) -> None:
    assert [caution.kind for caution in cautions.collect(found) if any("Chest X-ray" in place for place in caution.places)] == [
        "shared-test"
    ]


def test_baselines_stand_beside_the_best_model(found: results.Material) -> None:
    worth = {one.label: one for one in cautions.worths(found)}
    assert worth["Fundus phantom"].reading == "solved without a model" and worth["Fundus phantom"].above == 0
    assert worth["Chest X-ray phantom"].reading == "the baseline only guesses" and worth["Chest X-ray phantom"].above >= 6
    assert worth["Chest questions"].baseline == "Question only"  # the better of two


def test_uncalibrated_only_where_argmax_decides(folder: Path) -> None:
    rows = pl.read_parquet(folder / "tables/metrics.parquet").filter("uncalibrated")
    assert set(rows["metric"]) == {"accuracy"} and set(rows["mode"]) == {"ots"} and set(rows["task"]) == {"diagnosis"}


def test_absent_cells_are_listed_with_their_last_error(folder: Path) -> None:
    absent = {Cell(row["dataset"], row["model"], row["mode"]): row for row in pl.read_parquet(folder / "tables/absent.parquet").to_dicts()}
    assert set(absent) == {FAILED, NEVER_RUN}
    assert (
        absent[FAILED]["stage"] == "adapt"
        and absent[FAILED]["error"] == "ERROR: cell patho/siglip/lora: loss is nan; lower the learning rate"
    )
    assert absent[NEVER_RUN]["stage"] == "" and absent[NEVER_RUN]["error"].startswith("no job of this cell has run")
    shown = section(folder, "absent")
    assert "loss is nan; lower the learning rate" in shown and "snakemake --cores all results/predictions/radio/clip/lp.parquet" in shown
    assert pl.read_parquet(folder / "tables/cells.parquet").filter(~pl.col("present")).height == 2


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("ERROR: first\nERROR: second\nShutting down\n", "ERROR: second"),
        ("Traceback\n  File\nRuntimeError: out of memory\n\n", "RuntimeError: out of memory"),
        ("\n", "the log is empty: the job was ended from outside"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_last_error(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "job.log").write_text(log)
    assert results.last_error(tmp_path / "job.log") == line


def test_a_cell_with_outdated_intervals_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed prediction loses its table, while its old scores and intervals may still be there."""
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params()
    report_run.build(chosen)
    paths.predictions(*FAILED).unlink()
    report_run.fail(FAILED, "predict", "ERROR: no memory")
    absent = results.read(chosen, report_run.RUN, way).absent
    assert [(gone.cell, gone.stage, gone.error) for gone in absent] == [(FAILED, "predict", "ERROR: no memory")]


def test_a_run_without_a_cell_still_gets_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params()
    report_run.build(chosen, chosen.cells)
    for path in paths.gaps(report_run.RUN):
        schema = gaps.SCHEMAS.get(path.stem, tables.Gaps)
        tables.write(schema, tables.empty(schema), path)
    report.run(chosen, report_run.RUN)
    shown = text(paths.report(report_run.RUN))
    assert (
        f"0 of {len(chosen.cells)} cells are there" in shown
        and "This run has no comparison yet" in shown
        and "there is no gap yet" in shown
    )


def test_a_side_with_several_models_gets_its_confirmatory_analysis(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selection bias beside the best pair, and below it what validation data chose; where each side is one model, neither."""
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params()
    report_run.build(chosen)
    assert "Chosen on validation" not in text(folder)
    rq1, confirmatory = (path for path in paths.gaps(report_run.RUN) if path.stem in ("rq1", "confirmatory"))
    several = {"n_specialists": pl.lit(2, pl.Int16), "selection_bias": pl.lit(-0.0123)}
    tables.write(tables.Gaps, tables.read(tables.Gaps, rq1).with_columns(**several), rq1)
    values = tables.read(tables.Confirmatory, confirmatory).with_columns(specialist_validation=pl.lit(0.8765))
    tables.write(tables.Confirmatory, values, confirmatory)
    report.run(chosen, report_run.RUN)
    shown, said = text(paths.report(report_run.RUN)), paths.answer(report_run.RUN).read_text()
    assert "selection bias \N{MINUS SIGN}0.012" in shown and "(0.876 on validation)" in shown
    assert said.count("Chosen on validation data and tested once: of") == 1 == shown.count("The confirmatory analysis: one model a side")


@pytest.mark.parametrize(
    ("gap", "detectable", "expected"),
    [
        (0.05, 0.10, "about 300 more test patients"), (-0.05, 0.10, "about 300 more test patients"), (0.001, 0.10, "more than 100 times"),
        (0.12, 0.10, ""), (0.0, 0.10, ""), (0.05, None, ""),
    ],
)  # fmt: skip
def test_an_undecided_comparison_says_how_many_more_patients(gap: float, detectable: float | None, expected: str) -> None:
    """Twice the precision takes four times the patients: 100 and 300 more, however few of them are of the rarest class."""
    row = {"verdict": "undecided", "gap": gap, "minimum_detectable_difference": detectable, "effective_groups": 40.0, "n_groups": 100}
    found = answer._more_groups(row)
    assert expected in found if expected else found == ""
    assert answer._more_groups({**row, "verdict": "generalist"}) == ""


def test_the_answer_begins_with_what_to_use(folder: Path, found: results.Material) -> None:
    advised = answer.advice(found)
    assert [line.partition(":")[0] for line in advised] == [f"For {facts.label}" for facts in found.params.datasets.values()]
    assert (folder / "answer.txt").read_text().startswith(advised[0]) and advised[0] in section(folder, "answer")
    assert all(line in section(folder, "answer") for line in advised), "the page has them all"
    fundus = next(line for line in advised if line.startswith("For Fundus phantom"))
    assert "no verdict (12 effective groups, fewer than 30). About 18 more test patients (or other groups)" in fundus


@pytest.mark.parametrize(
    ("dataset", "reason", "expected"),
    [
        (
            "radio",
            "12 effective groups, fewer than 30: no verdict",
            "30). About 18 more test patients (or other groups) of the rarest class",
        ),
        ("radio", "9 effective groups, fewer than 10: no interval, no verdict", "no verdict). About 21 more test patients"),
        ("vqa", "29 effective groups, fewer than 30: no verdict", "30). About 1 more test patient (or other group) would do."),
        (
            "vqa",
            "1 effective group, fewer than 10: no interval, no verdict",
            "no verdict). About 29 more test patients (or other groups) would",
        ),
        ("radio", "p is too near 0.05 for 1,000 resamples (`n_test_resamples`): no verdict", "(`n_test_resamples`))."),
    ],
)
def test_too_few_groups_are_said_with_what_a_verdict_needs(dataset: str, reason: str, expected: str, found: results.Material) -> None:
    """An interval needs 10, a verdict 30; questions have no classes."""
    schema = found.gaps.schema
    rows = answer.deciding(found).filter(pl.col("dataset") == dataset).head(1)
    row = rows.with_columns(verdict=pl.lit(None, schema["verdict"]), reason=pl.lit(reason))
    (line,) = (line for line in answer.advice(found._replace(gaps=row)) if "nothing is compared" not in line)
    assert expected in line and line.count("more test") == ("effective" in reason), line


@pytest.mark.parametrize(
    ("verdict", "p_equivalent", "expected"),
    [
        (
            "specialist",
            0.5,
            "use the specialist MedCLIP, linear probe (0.900). It leads the generalist CLIP, linear probe (0.800) by 0.100.",
        ),
        (
            "generalist",
            0.01,
            "use the generalist CLIP, linear probe (0.800). It leads the specialist MedCLIP, linear probe (0.900) by 0.100, less",
        ),
        (
            "equivalent",
            0.01,
            "use the generalist CLIP, linear probe (0.800). The specialist MedCLIP, linear probe (0.900) is equivalent (within",
        ),
        (
            "undecided",
            0.5,
            "undecided between the generalist CLIP, linear probe (0.800) and the specialist MedCLIP, linear probe (0.900): a gap",
        ),
        (None, None, "no verdict (neither side is above the baseline)."),
    ],
)
def test_each_verdict_is_worded_for_whoever_must_choose(
    verdict: str | None, p_equivalent: float | None, expected: str, found: results.Material
) -> None:
    models = found.params.models
    sides = {"generalist": "clip", "specialist": "medclip", "generalist_mode": "lp", "specialist_mode": "lp"}
    values = {
        **sides, "question": "rq4", "dataset": found.gaps["dataset"][0],
        "generalist_estimate": 0.8, "specialist_estimate": 0.9, "gap": -0.1,
        "verdict": verdict, "p_equivalent": p_equivalent, "reason": None if verdict else "neither side is above the baseline: no verdict",
        "effective_groups": 100.0, "minimum_detectable_difference": 0.2,
    }  # fmt: skip
    schema = found.gaps.schema
    row = found.gaps.head(1).with_columns(**{name: pl.lit(value).cast(schema[name]) for name, value in values.items()})
    line = answer.advice(found._replace(gaps=row))[0]
    expected = expected.replace("MedCLIP", models["medclip"].label).replace("generalist CLIP", f"generalist {models['clip'].label}")
    assert expected in line, line


# --- a run with a judge


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose answers were judged, in both scorings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("judged"))
        chosen = report_run.params()._replace(judges={"careful": JudgeFacts("Careful judge", "judges")})
        report_run.build(chosen)
        report_run.judge(chosen)
        report.run(chosen, report_run.RUN)
        return Path.cwd() / paths.report(report_run.RUN)


def test_the_overall_judge_score_is_drawn_and_decides_nothing(judged: Path, folder: Path) -> None:
    """The study's figures of questions: a gap a question, what each model reaches; beside them no verdict."""
    for scoring in ("strict", "published"):
        drawn = (judged / f"figures/gaps-judge-score-{scoring}.svg").read_text()
        words = re.sub(r"<[^>]+>", " ", drawn)
        assert all(f"{question}, " in words for question in ("RQ1", "RQ2", "RQ4")) and words.count("no verdict") == 3
        for mode, own in (("ots", "0.620"), ("lora", "0.650")):
            squares = (judged / f"figures/heatmap-judge-score-{scoring}-{mode}.svg").read_text()
            assert all(label in squares for label in ("Mini llava", "Mini llavamed", "Question only, baseline", own))
    page = section(judged, "reached")
    titles = re.findall(r"(?:Gap in o|O)verall judge score \((?:strict|published), descriptive\)", page)
    assert len(titles) == 6 and "no verdict rests on it" in page
    before = {path.name for path in (folder / "figures").iterdir()}
    assert {path.stem for path in (judged / "figures").iterdir() if path.name not in before} == {
        f"{kind}-judge-score-{scoring}{mode}"
        for scoring in ("strict", "published")
        for kind, mode in (("gaps", ""), ("heatmap", "-ots"), ("heatmap", "-lora"))
    }
    assert (judged / "answer.txt").read_bytes() == (folder / "answer.txt").read_bytes(), "the answer is the same"
    assert "judge" not in section(folder, "reached").lower(), "a run without a judge is as before"


def test_equal_inputs_give_equal_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[2])
    before = digests(folder)
    (folder / "figures" / "old.svg").write_text("of another run")
    for record in paths.RESULTS.glob("predictions/**/*.run.json"):  # another machine at another hour
        record.write_text(json.dumps({**json.loads(record.read_text()), "seconds": 99.0, "host": "elsewhere", "device": "cuda"}))
    report.run(report_run.params(), report_run.RUN)
    after = digests(folder)
    for name in ("facts.json", "cost.csv"):
        assert before.pop(name) != after.pop(name)
    assert after == before


def test_hostile_labels_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params(radio=HOSTILE, clip=HOSTILE, vqa=HOSTILE)
    report_run.build(chosen, (FAILED,))
    report_run.fail(FAILED, "adapt", f"ERROR: {HOSTILE}")
    report.run(chosen, report_run.RUN)
    folder = paths.report(report_run.RUN)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count("</svg>") == page.count("<svg ")
    assert HOSTILE in section(folder, "absent")
    for svg in (folder / "figures").glob("*.svg"):
        drawn = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
        assert drawn.tag.endswith("svg") and "<script" not in svg.read_text(encoding="utf-8")
    for image in re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(image)


ACTING = "a\0b\x1b[31m\x9b2J\x07\r\u202etxt.exe\u2066\u2028\ufeff"
SPELLED = r"a\x00b\x1b[31m\x9b2J\x07\x0d\u202etxt.exe\u2066\u2028\ufeff"


def test_control_characters_act_on_no_page_and_no_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params(radio=ACTING, clip=ACTING, vqa=ACTING)
    report_run.build(chosen, (FAILED,))
    samples = pl.read_parquet(paths.samples("vqa", "test")).with_columns(question=pl.lit(ACTING + HOSTILE), answer=pl.lit(ACTING))
    samples.write_parquet(paths.samples("vqa", "test"))
    report_run.fail(FAILED, "adapt", f"ERROR: {ACTING}")
    report.run(chosen, report_run.RUN)
    folder = paths.report(report_run.RUN)
    for file in (folder / "index.html", folder / "answer.txt", *(folder / "figures").glob("*.svg")):
        with file.open(encoding="utf-8", newline="") as stream:
            whole = stream.read()
        assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]", whole)), file
        assert SPELLED in whole or file.suffix == ".svg"
    assert f"{SPELLED}{HOSTILE} {SPELLED}" in section(folder, "images")
    assert "<script" not in (folder / "index.html").read_text(encoding="utf-8")
    for svg in (folder / "figures").glob("*.svg"):
        ElementTree.fromstring(svg.read_text(encoding="utf-8"))


FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1+1",
    "\uff20x",
    "-0.5-cmd",
    "=-0.5",
)
PLAIN = ("-0.5", "+3", "-1e-05", "-inf", "1 -2", "a=b", "a-1", "5-3", "", None)


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay(tmp_path: Path) -> None:
    values = [*FORMULAS, *PLAIN]
    frame = pl.DataFrame({
        "=name": values, "number": [-0.5] * len(values), "numbers": [[-0.5, 2.0]] * len(values), "texts": [[text or ""] for text in values],
    })  # fmt: skip
    export.write_tables({"t": frame}, tmp_path)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["'=name", "number", "numbers", "texts"]
    safe = [*(f"'{value}" for value in FORMULAS), *(value or "" for value in PLAIN)]
    assert rows == [[value, "-0.5", "-0.5 2.0", value] for value in safe]
    assert pl.read_parquet(tmp_path / "t.parquet").equals(frame)  # as it was


def test_every_csv_of_a_report_is_defused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    formula = '=HYPERLINK("http://x","y")'
    chosen = report_run.params(radio=formula, clip=formula, vqa=formula)
    report_run.build(chosen, (FAILED,))
    report_run.fail(FAILED, "adapt", formula)
    report.run(chosen, report_run.RUN)
    cells = [
        cell for file in paths.report(report_run.RUN).rglob("*.csv") for row in csv.reader(file.open(encoding="utf-8")) for cell in row
    ]
    assert f"'{formula}" in cells and not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_certificates_reach_page_and_table(folder: Path) -> None:
    rows = pl.read_parquet(folder / "tables/cells.parquet").filter(dataset="radio", model="clip", mode="lora")
    facts = rows.select(
        "certificate.parameters_trained", "certificate.loss_end", "certificate.selection.C", "certificate.tensors.count"
    ).row(0)
    assert facts == (1026, 0.21, 0.1, 2)
    assert (
        "radio/clip/lora method lora; n train 160; n val 40; parameters trained 1026; n trainable 2; n with gradient 2; loss start 0.69;"
        in section(folder, "facts")
    )


def test_answers_that_cannot_be_read_or_never_end_are_cautioned(found: results.Material) -> None:
    assert cautions.unreadable(found).places == [
        "Chest questions, Mini llava, off the shelf: 4 of 10 closed answers hold no choice (1 refused, 3 unparsed)"
    ]
    (place,) = cautions.cut_off(found).places
    assert place == "Chest questions, Mini llava, off the shelf: of 20 answers, 3 stopped while they went round in circles"
    assert cautions.rounded(found).places == []
    cell = next(cell for cell in found.present if cell.dataset == "vqa")
    records = {**found.records, cell: {**found.records[cell], "asked_alone": 32, "changed_alone": 2}}
    (place,) = cautions.rounded(found._replace(records=records)).places
    assert place == f"{cell}: 2 of 32 questions answered otherwise when asked alone"


def test_answers_that_a_service_held_back_are_cautioned(found: results.Material) -> None:
    answers = found.answers.with_columns(filter=pl.lit(3, pl.Int64), refusal=pl.lit(2, pl.Int64), empty=pl.lit(3, pl.Int64))
    places = cautions.unreadable(found._replace(answers=answers)).places
    assert all("2 of 20 answers are refusals, 3 of 20 answers were held back by the service" in place for place in places) and places
    assert not any("empty" in place for place in places), "what was held back is not counted twice"


def test_a_checkpoint_behind_a_server_is_compared_with_itself_here(found: results.Material) -> None:
    assert cautions.behind_a_server(found).places == [] and served.table(found).is_empty()
    models = {**found.params.models, "llavamed": found.params.models["llavamed"]._replace(same_as="llava")}
    twice = found._replace(params=found.params._replace(models=models))
    rows = served.table(twice).to_dicts()
    assert {(row["dataset"], row["model"], row["here"]) for row in rows} == {("vqa", "llavamed", "llava")}
    for row in rows:
        cells = [Cell(row["dataset"], row[side], row["mode"]) for side in ("model", "here")]
        answers = [pl.read_parquet(paths.predictions(*cell))["answer"].to_list() for cell in cells]
        assert row["n_different"] == sum(a != b for a, b in zip(*answers, strict=True)) and row["n"] == len(answers[0])
        chosen = (
            pl.col("metric") == "closed_accuracy",
            pl.col("scoring") == "strict",
            pl.col("subset") == "closed",
            pl.col("method") == "percentile",
        )
        first, second = (pl.read_parquet(paths.intervals(*cell)).filter(*chosen) for cell in cells)
        assert row["gap"] == pytest.approx(first["estimate"].item() - second["estimate"].item())
        drawn = first["replicates"].item().to_numpy() - second["replicates"].item().to_numpy()
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.nanquantile(drawn, [0.025, 0.975])))
    assert len(cautions.behind_a_server(twice).places) == len(rows)


def test_accuracy_has_two_bounds_where_answers_hold_no_choice(folder: Path, found: results.Material) -> None:
    (line,) = page.choices(found)
    assert line[:4] == ("Chest questions", "Mini llava", "off the shelf", "1 refused, 3 unparsed of 10")
    shown = section(folder, "reached")
    assert "Closed answers that hold no choice" in shown
    for value in (line.wrong, line.left_out):
        assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", value) and value in shown
    assert line.left_out.startswith("0.900")


def test_an_adapted_cell_without_certificate_is_cautioned(found: results.Material) -> None:
    cell = Cell("radio", "clip", "lora")
    without = found._replace(certificates={name: value for name, value in found.certificates.items() if name != cell})
    assert cautions.untrained(found).places == []
    assert cautions.untrained(without).places == ["radio/clip/lora"]


def test_a_large_run_keeps_a_small_page(found: results.Material, monkeypatch: pytest.MonkeyPatch) -> None:
    from medbench.report import page, panels

    monkeypatch.setattr(panels, "MAX_PANEL_CELLS", 10)
    monkeypatch.setattr(panels, "MAX_GAPS", 3)
    for name in ("MAX_LINES", "MAX_PLACES", "MAX_ROWS", "MAX_CELLS"):
        monkeypatch.setattr(page, name, 1)
    shown = panels.panels(found)
    assert [panel.figure is None for panel in shown] == [True, True, True, False, False]
    assert [figure.name for figure in panels.gap_figures(found)] == ["gaps-closed-accuracy"]
    made = page.render(found, page.Parts([], shown, [], cautions.collect(found), [], ["metrics"]))
    for pointer in (
        "20 values, too many to be read",
        "4 comparisons, too many for this page",
        "58 cells, too many for this page",
        "first 1 of 2 absent cells",
    ):
        assert pointer in made


@pytest.mark.parametrize(
    ("value", "shown"), [(0.81249, "+0.812"), (-0.05, "\N{MINUS SIGN}0.050"), (0.0004, "0.000"), (-0.0004, "0.000"), (None, words.NOTHING)]
)
def test_signed(value: float | None, shown: str) -> None:
    assert words.signed(value) == shown


def test_missing_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params()
    report_run.build(chosen)
    paths.overlap(report_run.RUN).unlink()
    with pytest.raises(MedbenchError, match=r"overlap/trial\.parquet: the table does not exist"):
        report.run(chosen, report_run.RUN)
    assert not (paths.report(report_run.RUN) / "index.html").exists()


def test_params_follow_labels_and_distinguish_equal_ones() -> None:
    loaded = config.from_files([ROOT / "config" / "config.yaml"], ROOT)
    chosen = report.params(loaded, loaded.run.run)
    assert chosen.models["mini-clip"].label == "Mini CLIP" and chosen.models["raw-pixels"].role == "baseline"
    assert chosen.models["mini-medclip"].in_domain == ("phantom-radiology", "phantom-pathology")
    about = loaded.models["mini-clip"].about.model_copy(update={"label": "Mini MedCLIP"})
    models = {**loaded.models, "mini-clip": loaded.models["mini-clip"].model_copy(update={"about": about})}
    duplicates = report.params(loaded._replace(models=models), loaded.run.run).models
    assert duplicates["mini-clip"].label == "Mini MedCLIP (mini-clip)" and duplicates["mini-medclip"].label == "Mini MedCLIP (mini-medclip)"
    with pytest.raises(MedbenchError, match="the configuration is of run"):
        report.params(loaded, "other")


def test_the_job_imports_no_torch_and_the_stage_no_altair() -> None:
    code = (
        "import sys; from medbench.stages import report; assert 'altair' not in sys.modules; "
        "from medbench.report import cautions, export, figures, page, panels, results, sample_sheet; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_altered_files_lost_records_and_another_seed_are_cautions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edited table of the same size, a deleted record, a lost certificate's file, data of another seed: each is named."""
    monkeypatch.chdir(tmp_path)
    chosen = report_run.params()
    report_run.build(chosen)
    whole = {one.kind for one in cautions.collect(results.read(chosen, report_run.RUN, way))}
    assert not whole & {"altered", "other-seed"}
    edited, lost, cell = paths.intervals(*chosen.cells[0]), paths.intervals(*chosen.cells[1]), chosen.cells[2]
    frame = tables.read(tables.Intervals, edited)
    tables.write(tables.Intervals, frame.with_columns(estimate=pl.lit(1.0)), edited)
    paths.run_record(lost).unlink()
    certificate = paths.adapter_files(*cell)[0]
    certificate.write_text(certificate.read_text().replace("0.21", "0.11"))
    data = paths.run_record(paths.data("radio")[0])
    data.write_text(json.dumps({"params": {"params": {"seed": 7}}}))
    found = {one.kind: one.places for one in cautions.collect(results.read(chosen, report_run.RUN, way))}
    assert found["altered"] == [
        f"{edited}: is not the file that its job wrote",
        f"{lost}: its run record is missing: how it was made is not known",
        f"{certificate}: is not the file that its job wrote",
    ]
    assert found["other-seed"] == ["results/data/radio: seed 7, the run's is 0"]
