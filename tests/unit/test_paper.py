"""The published figures: who is in whose domain, gaps and counts recomputed another way, a run beside them."""

import argparse
import csv
import os
from pathlib import Path

import polars as pl
import pytest

from medbench import cells, config, paths, tables
from medbench.analysis import companion, paper
from medbench.analysis.gaps import rq_table
from medbench.config import Config
from medbench.verbs import compare_paper

ROOT = Path(__file__).parents[2]


def registries() -> Config:
    """The registries as shipped."""
    return config.from_files([ROOT / "config" / "config.yaml"], ROOT)


def test_the_registries_reproduce_the_in_domain_table_pair_by_pair() -> None:
    loaded, known = registries(), paper.names()
    expected = paper.in_domain()
    assert sum(map(len, expected.values())) == 22
    datasets = [(task, slug) for (task, _), slug in known.datasets.items() if task != "mcq"]
    assert len(known.models) * len(datasets) == 200
    for model, family, _ in known.models.values():
        same_task = [slug for task, slug in datasets if (task == "diagnosis") == (family in ("clip", "siglip"))]
        found = {dataset for dataset in same_task if cells.is_in_domain(loaded, model, dataset)}
        assert found == expected.get(model, frozenset()), model


def test_the_registries_hold_the_study() -> None:
    """Families, roles and tasks as in names.csv; the closed models run off the shelf only; the published prompts decide."""
    loaded, known = registries(), paper.names()
    for slug, family, role in known.models.values():
        assert (loaded.models[slug].family, loaded.models[slug].role) == (family, role)
        assert loaded.models[slug].modes == (("ots",) if slug in ("o3", "gemini-2.5-pro") else None)
    for (task, _), slug in known.datasets.items():
        if task != "mcq":
            entry = loaded.datasets[slug]
            assert entry.task == task
            assert all(text.startswith("a photo of ") for texts in entry.prompts.get("main", {}).values() for text in texts)


def test_every_name_is_mapped_and_mapped_once() -> None:
    known = paper.names()
    rows = [row for file in ("diagnosis_auroc.csv", "vqa_closed_accuracy.csv") for row in csv.DictReader((paper.FOLDER / file).open())]
    assert {row["model"] for row in rows} <= set(known.models)
    assert {row["dataset"] for row in rows} <= {name for _, name in known.datasets}
    slugs = [slug for slug, *_ in known.models.values()] + list(known.datasets.values())
    assert len(slugs) == len(set(slugs))


def test_the_studys_cells() -> None:
    figures = paper.published()
    assert figures.group_by("task").len().sort("task").rows() == [("diagnosis", 144), ("vqa", 72)]
    cell = figures.filter(pl.col("dataset") == "fairvlmed-vqa", pl.col("model") == "llava-med", pl.col("mode") == "ots")
    assert cell.select("estimate", "low", "high").row(0) == pytest.approx((0.7613, 0.7425, 0.7796))


def test_gaps_from_the_figures_alone() -> None:
    made = paper.rq_tables()
    for question, adaptation, family, dataset, generalist, specialist, gap in (
        ("rq1", "ots", "clip", "camelyon17", "clip", "biomedclip", 0.5296 - 0.7717),
        ("rq1", "ots", "siglip", "camelyon17", "siglip", "medsiglip", 0.5981 - 0.4214),
        ("rq2", "lp", "clip", "chexpert", "blip-2", "medclip", 0.8602 - 0.9060),
        ("rq3", "lora", "clip", "papila", "blip-2", "pubmedclip", 0.9409 - 0.7943),
        ("rq1", "ots", "qwen-vl", "vqa-rad", "qwen2-vl", "lingshu", 0.7523 - 0.7047),
        ("rq2", "lora", "gemma", "vqa-rad", "gemma-3", "medgemma", 0.6132 - 0.6839),
        ("rq3", "lora", "llava", "fairvlmed-vqa", "llava-1.5", "llava-med", 0.8475 - 0.8193),
    ):
        chosen = {"adaptation": adaptation, "family": family, "dataset": dataset, "rank": 1}
        row = (
            made[question]
            .filter(pl.col("gap").is_not_null(), *(pl.col(name) == value for name, value in chosen.items()))
            .row(0, named=True)
        )
        assert (row["generalist"], row["specialist"]) == (generalist, specialist)
        assert row["gap"] == pytest.approx(gap)


def test_what_needs_pairing_is_null_with_its_reason() -> None:
    for frame in paper.rq_tables().values():
        found = frame.filter(pl.col("gap").is_not_null())
        for name in ("low", "high", "sd", "p", "p_holm", "verdict", "minimum_detectable_difference", "n_pair"):
            assert found[name].null_count() == len(found)
        assert found["reason"].str.contains("without paired resamples").all()


@pytest.mark.parametrize("mode", ["lp", "lora"])
@pytest.mark.parametrize("rank", [1, 2])
def test_counts_another_way(mode: str, rank: int) -> None:
    """A plain loop over the CSV, in the study's own names."""
    value = {
        (r["mode"], r["model"], r["dataset"]): float(r["auroc"]) for r in csv.DictReader((paper.FOLDER / "diagnosis_auroc.csv").open())
    }
    domain = {(r["specialist"], r["in_domain_dataset"]) for r in csv.DictReader((paper.FOLDER / "in_domain.csv").open())}
    specialists = {"MedCLIP", "PubMedCLIP", "PLIP", "BioMedCLIP", "MedSigLIP"}
    counts = {"global-rq2": [0, 0], "global-rq3": [0, 0]}
    for dataset in {key[2] for key in value}:
        for question, other, inside in (("global-rq2", "ots", True), ("global-rq3", mode, False)):
            against = sorted((value[other, s, dataset] for s in specialists if ((s, dataset) in domain) == inside), reverse=True)
            for generalist in ("CLIP", "BLIP2", "SigLIP"):
                if against:
                    counts[question][0] += value[mode, generalist, dataset] > against[min(rank, len(against)) - 1]
                    counts[question][1] += 1
    made = paper.exceeding(paper.rq_tables()["global"]).filter(
        pl.col("metric") == "auroc", pl.col("adaptation") == mode, pl.col("rank") == rank
    )
    assert {question: [exceed, of] for question, exceed, of in made.select("question", "exceed", "of").iter_rows()} == counts


def test_docs_hold_what_the_figures_say() -> None:
    made, page = paper.rq_tables(), (ROOT / "docs/study.md").read_text(encoding="utf-8")
    for table in (paper.gaps_side_by_side(made), paper.including_zero(made), paper.counts(made)):
        assert paper.markdown(table) in page, f"docs/study.md lacks this table of `compare-paper`:\n{paper.markdown(table)}"


def test_both_adapted_in_domain_turns_most_gaps_of_rq2() -> None:
    """Linear probe, in points: six of seven gaps are positive against a specialist off the shelf, two once it is adapted too."""
    figures = paper.published()
    who, numbers = paper.study(figures), paper.Figures(figures)
    gaps = {
        question: {round(100 * gap, 2) for gap in rq_table(question, who, numbers).filter(adaptation="lp")["gap"].drop_nulls()}
        for question in ("rq2", "rq4")
    }
    assert gaps["rq2"] == {20.96, 30.80, 55.07, 23.08, 34.64, 14.19, -4.58}
    assert gaps["rq4"] == {-0.44, 1.05, -1.39, -3.54, 1.14, -16.78, -2.50}


def test_unpaired_bounds_by_hand_and_counted() -> None:
    """By the published sd; for questions, whose tables have none, by the widths of the two intervals."""
    figures = paper.published()
    rows = paper.unpaired(paper.rq_tables()["rq1"].filter(pl.col("gap").is_not_null()), figures)
    for dataset, family, sd in (("slake", "gemma", None), ("camelyon17", "clip", "sd")):
        row = rows.filter(dataset=dataset, family=family).row(0, named=True)
        of = [figures.filter(dataset=dataset, mode="ots", model=row[side]).row(0, named=True) for side in ("generalist", "specialist")]
        sds = [one["sd"] if sd else (one["high"] - one["low"]) / 3.92 for one in of]
        assert (row["unpaired_high"] - row["gap"]) == pytest.approx(1.96 * (sds[0] ** 2 + sds[1] ** 2) ** 0.5, rel=1e-4)
        assert row["gap"] - row["unpaired_low"] == pytest.approx(row["unpaired_high"] - row["gap"])
    counted = paper.including_zero(paper.rq_tables())
    assert counted.to_series(2).to_list() == ["7 of 16", "2 of 7", "5 of 16", "6 of 8", "6 of 11"]


def test_counts_stand_side_by_side() -> None:
    """12 = 4 data sets with an in-domain specialist x 3 generalists; CLIP's own family has PAPILA out of its domain: 3 x 2 + 4."""
    rows = {tuple(row[:3]): row[3:] for row in paper.counts(paper.rq_tables()).iter_rows()}
    assert rows["auroc", "RQ2", "lp"] == ("9 of 12", "12 of 12", "8 of 10", "10 of 10")
    assert len(rows) == 6


def intervals(estimate: float | None, low: float | None, high: float | None, metric: str, scoring: str, subset: str) -> pl.DataFrame:
    """A table of one row as published."""
    row = {
        "metric": metric, "scoring": scoring, "subset": subset, "method": "published", "unit": "sample", "level": 0.95,
        "estimate": estimate, "sd": 0.0123, "low": low, "high": high, "n": 10, "n_groups": 10, "effective_groups": 10.0,
        "n_resamples": 100, "n_undefined": 0, "few_groups": True, "reason": None, "sample_digest": "x", "replicates": [estimate],
    }  # fmt: skip
    return pl.DataFrame([row], schema=tables.columns(tables.Intervals))


def test_a_run_beside_the_paper_worst_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert paper.compare_paper().is_empty()
    paper.command()
    assert "nothing to set beside" in capsys.readouterr().out
    written = {
        ("camelyon17", "clip", "ots"): (0.53, 0.50, 0.56, "auroc", "standard", "all"),  # published 52.96 [49.27, 56.83]
        ("ham10000", "plip", "lp"): (0.60, 0.55, 0.62, "auroc", "standard", "all"),  # published 84.32
        ("slake", "lingshu", "ots"): (0.70, 0.65, 0.74, "accuracy", "published", "closed"),  # published 77.69 [73.56, 81.49]
        ("papila", "clip", "lp"): (None, None, None, "auroc", "standard", "all"),
        ("pathvqa", "lingshu", "ots"): (0.1, 0.1, 0.1, "closed_accuracy", "strict", "closed"),  # another scoring: not compared
    }
    for cell, values in written.items():
        tables.write(tables.Intervals, intervals(*values), paths.intervals(*cell))
    made = paper.compare_paper()
    assert made["dataset"].to_list() == ["ham10000", "slake", "camelyon17", "papila"]
    assert made["overlap"].to_list() == [False, True, True, None]
    assert made["difference"].to_list() == [pytest.approx(0.60 - 0.8432), pytest.approx(0.70 - 0.7769), pytest.approx(0.53 - 0.5296), None]
    paper.command()
    printed = capsys.readouterr().out
    assert "4 cells beside the published figures, worst first; the intervals of 1 do not meet" in printed
    assert "-24.21" in printed  # RQ1, CLIP family on Camelyon17
    beside = printed[printed.index("4 cells beside") :]
    assert beside.count("1.23") == 4 and "| 1.93" in beside and "own_sd" in beside  # own sd, and the published one of CLIP on Camelyon17
    assert "10 of 15, is of judge scores" in printed


def test_the_studys_own_probe_stands_beside_the_published_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for mode, value in (("lp", 0.60), ("lp-published", 0.80), ("lp-16", 0.5)):
        frame = intervals(value, value - 0.05, value + 0.05, "auroc", "standard", "all")
        tables.write(tables.Intervals, frame, paths.intervals("ham10000", "plip", mode))
    made = paper.compare_paper()
    assert made.select("mode", "estimate", "own", "overlap").rows() == [
        ("lp", 0.8432, 0.60, False), ("lp-published", 0.8432, 0.80, True),
    ]  # fmt: skip


# --- the companion study


def test_the_companion_studys_contradictions() -> None:
    """The known counts: reasoning above understanding, the whole above both parts, numbers of questions, rows that fit none."""
    rows = companion.figures()
    assert rows.height == 70 and rows["model"].n_unique() == 10
    assert rows.filter(pl.col("reasoning") > pl.col("understanding")).height == 66
    table = {row["benchmark"]: row for row in companion.contradictions().iter_rows(named=True)}
    expert = table["MedXpert"]
    assert expert["all above both"] == expert["implied understanding > reasoning"] == "10 of 10"
    assert expert["by more than 95% bounds"] == "3 of 10"
    fit = {(row["benchmark"], row["part"]): (row["n"], row["fit"]) for row in companion.denominators().iter_rows(named=True)}
    assert fit["MedXpert", "reasoning"] == ("1446", "8 of 10") and fit["MedXpert", "understanding"] == ("554", "0 of 10")
    assert fit["MMMU", "all"] == ("145", "7 of 10") and fit["VQA-RAD", "all"] == ("251", "7 of 10")
    assert fit["PathVQA", "all"] == ("3362", "10 of 10") and fit["PMC-VQA", "all"] == ("2000", "6 of 10")
    assert companion.without_denominator() == ["Qwen2.5-VL-32B", "Qwen2.5-VL-72B"]


def test_what_follows_from_the_whole_and_one_part() -> None:
    """By hand: 100 questions, 60 right, 30 of 60 of reasoning: 30 of the other 40, 0.75 - 0.5."""
    gap = companion._implied_gap(0.6, 0.5, companion.Sizes(100, 60))
    assert gap is not None and gap[0] == pytest.approx(0.25)
    assert gap[1] == pytest.approx(1.959964 * (0.25 / 60 + 0.1875 / 40) ** 0.5)
    assert companion._implied_gap(0.6, 0.5, companion.Sizes(100)) is None


def test_an_accuracy_fits_its_number_of_questions() -> None:
    assert companion.fits(0.4690, 145) and not companion.fits(0.4691, 145)
    assert companion.by_chance(145) == pytest.approx(146 / 10**4)
    assert all(companion.fits(round(k / 251, 4), 251) for k in range(252))


def test_docs_hold_what_the_companion_study_says() -> None:
    page = (ROOT / "docs/study.md").read_text(encoding="utf-8")
    for table in (companion.contradictions(), companion.denominators()):
        assert paper.markdown(table) in page, f"docs/study.md lacks this table of `compare-paper`:\n{paper.markdown(table)}"


def test_the_verb_says_both_studies(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compare_paper.execute(argparse.Namespace())
    said = capsys.readouterr().out
    assert "RQ1 per family" in said and "higher in 66 of 70 cells" in said and "Qwen2.5-VL-32B and Qwen2.5-VL-72B fit" in said


def test_the_companion_run_has_its_ten_models() -> None:
    """As many generalists and specialists as the figures have; those without an architecture file are announced."""
    loaded = config.from_files([ROOT / "config/config.yaml", ROOT / "config/companion.yaml"], ROOT)
    entries = {name: loaded.models[name] for name in loaded.run.models}
    roles = companion.figures().unique("model")["role"].to_list()
    assert sorted(entry.role for entry in entries.values()) == sorted(roles) and len(roles) == 10
    assert {name for name, entry in entries.items() if not entry.has_file} == {"huatuogpt-vision-7b", "huatuogpt-vision-34b"}
    assert {entry.kind for entry in entries.values()} == {"generative"}


@pytest.mark.skipif("MEDBENCH_REAL_DATA" not in os.environ, reason="MEDBENCH_REAL_DATA names no folder of real data")
def test_the_figures_are_those_transcribed() -> None:
    with (Path(os.environ["MEDBENCH_REAL_DATA"]) / "mcq/study/published_accuracy.csv").open(encoding="utf-8", newline="") as stream:
        expected = [(row["model"], row["benchmark"], *(float(row[part]) for part in companion.PARTS)) for row in csv.DictReader(stream)]
    assert companion.figures().select("model", "benchmark", *companion.PARTS).rows() == expected
