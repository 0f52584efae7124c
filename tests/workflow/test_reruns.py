"""What reruns, on finished nano runs, by what was really executed."""

import json
import re
from pathlib import Path

import pytest

from medbench.stages import STAGES
from tests.conftest import Clone

AGGREGATES = {"gaps nano", "report nano"}
MODEL_STAGES = ("pretrain", "prepare", "embed", "prompts", "adapt", "predict")


def stages(executed: set[str]) -> set[str]:
    """Names of the stages among executed jobs."""
    return {job.split()[0] for job in executed}


def test_finished_run_has_nothing_to_do(clone: Clone) -> None:
    outcome = clone.snakemake()
    assert outcome.code == 0
    assert outcome.executed == set()
    assert "Nothing to be done" in outcome.output


def test_added_model_runs_its_own_cells_and_the_aggregates(clone: Clone) -> None:
    clone.append(
        "config/models.yaml",
        "\nninth:\n  family: clip\n  role: specialist\n  architecture: clip\n  pretrained_on: [everyday]\n"
        "  pretrain: {corpus: [natural], steps: 5, batch_size: 16}\n",
    )
    clone.edit("config/nano.yaml", "models: [nano-clip, nano-medclip", "models: [nano-clip, nano-medclip, ninth")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    cells = {f"{stage} nano-radiology/ninth/{mode}" for stage in ("predict", "interval") for mode in ("ots", "lp", "lora")}
    own = {"pretrain ninth", *(f"{stage} nano-radiology/ninth" for stage in ("embed", "prompts", "spread"))}
    adapted = {f"adapt nano-radiology/ninth/{mode}" for mode in ("lp", "lora")}
    assert outcome.executed == cells | own | adapted | AGGREGATES


def test_another_recipe_of_a_model_trains_it_anew(clone: Clone) -> None:
    clone.edit("config/models.yaml", "corpus: [natural], steps: 120, pool_size: 500", "corpus: [natural], steps: 5, pool_size: 500")
    outcome = clone.snakemake("results/models/nano-clip")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"pretrain nano-clip"}
    assert json.loads(clone.records()["pretrain nano-clip"])["shipped"] is False


def test_comments_docstrings_and_resources_rerun_nothing(clone: Clone) -> None:
    clone.append("config/models.yaml", "\n# a comment\n")
    clone.append("medbench/stages/predict.py", "\n# a comment\n")
    clone.append("medbench/models/contrastive/clip.py", "\n# a comment\n")
    clone.edit("workflow/rules/predict.smk", "mem_mb=3000", "mem_mb=4000")
    assert clone.snakemake().executed == set()


def test_label_reruns_the_report_only(clone: Clone) -> None:
    clone.edit("config/models.yaml", '"Nano CLIP"', '"A better name"')
    outcome = clone.snakemake()
    assert outcome.executed == {"report nano"}
    assert "A better name" in (clone.folder / "results/report/nano/index.html").read_text()


def test_architecture_file_reruns_that_architecture(clone: Clone) -> None:
    clone.append("medbench/models/contrastive/siglip.py", "\nCHANGED = 1\n")
    assert clone.snakemake().executed == set()
    clone.append("medbench/models/contrastive/clip.py", "\nCHANGED = 1\n")
    outcome = clone.snakemake("--dry-run")
    assert "embed" in outcome.output
    assert "prepare" not in outcome.output
    assert "pretrain" not in outcome.output


def test_bootstrap_size_reruns_intervals_and_what_follows(clone: Clone) -> None:
    clone.append("config/nano.yaml", "statistics: {n_resamples: 200}\n")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    assert stages(outcome.executed) == {"interval", "gaps", "report"}


def test_metric_change_reruns_no_model_job(clone: Clone) -> None:
    clone.append("medbench/metrics/diagnosis.py", "\nCHANGED = 1\n")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    assert "interval" in stages(outcome.executed)
    assert not stages(outcome.executed) & set(MODEL_STAGES)


def test_recipe_reruns_its_mode_only(clone: Clone) -> None:
    clone.edit("config/modes.yaml", "lp:\n  kind: probe\n", "lp:\n  kind: probe\n  n_splits: 3\n")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    assert {job.split("/")[-1] for job in outcome.executed if job.startswith(("adapt", "predict"))} == {"lp"}
    assert "embed" not in stages(outcome.executed)


def test_prompt_edit_embeds_no_image_again(clone: Clone) -> None:
    path, main = clone.folder / "config/datasets.yaml", 'main: {clear: ["chest radiograph with clear lungs"]'
    before, after = path.read_text().split("nano-radiology:")
    path.write_text(before + "nano-radiology:" + after.replace(main, 'main: {clear: ["quiet chest radiograph"]'))
    assert path.read_text() != before + "nano-radiology:" + after
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    predicted = {f"predict nano-radiology/{model}/ots" for model in ("nano-clip", "nano-medclip")}
    assert {job for job in outcome.executed if job.startswith("predict")} == predicted
    assert not {"embed", "adapt"} & stages(outcome.executed)


def test_library_version_is_stale_and_reruns_on_demand(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of scikit-learn is pretended by metadata that stands earlier on the path."""
    metadata = tmp_path / "pretended/scikit_learn-99.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: scikit-learn\nVersion: 99.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "pretended"))
    outcome = clone.snakemake()
    assert outcome.executed == set()
    assert "STALE" not in outcome.output, "no prediction is computed with scikit-learn"

    clone.append("config/nano.yaml", "rerun_on_versions: true\n")
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    assert {job for job in outcome.executed if job.startswith("adapt")} == {
        job for job in clone.records() if job.endswith("/lp") and "adapt" in job
    }
    assert "embed" not in stages(outcome.executed)
    assert clone.snakemake().executed == set()


def test_stale_cells_are_said(clone: Clone) -> None:
    for path in (clone.folder / "results/predictions").rglob("ots.run.json"):
        record = json.loads(path.read_text())
        record["versions"]["polars"] = "1.0"
        path.write_text(json.dumps(record))
    outcome = clone.snakemake("--dry-run")
    n_cells = len(list((clone.folder / "results/predictions").rglob("*.parquet")))
    assert re.search(rf"STALE: \d+ of {n_cells} cells were made with other library versions \(.*polars 1.0 -> ", outcome.output), (
        outcome.output
    )


def test_one_cell_by_its_path(clone: Clone) -> None:
    cell = "results/predictions/nano-radiology/nano-clip/lp.parquet"
    (clone.folder / cell).unlink()
    outcome = clone.snakemake(cell)
    assert outcome.executed == {"predict nano-radiology/nano-clip/lp"}


def test_the_scores_of_a_diagnosis_are_made_on_demand(clone: Clone) -> None:
    cell = "nano-radiology/nano-clip/lp"
    made = {path.parts[-3] for path in (clone.folder / "results/scores").rglob("*.parquet")}
    assert made == {"nano-vqa-radiology"}, "no job reads the others"
    outcome = clone.snakemake(f"results/scores/{cell}.parquet")
    assert outcome.executed == {f"score {cell}"}, outcome.output


def test_tracked_code_covers_what_is_really_imported(finished: Clone) -> None:
    """Every module that a job imported, by its run record, counts as its stage's code (unless what it decides is tracked by value)."""
    from medbench import cli, config, provenance

    nano = config.from_files([finished.folder / "config/config.yaml", finished.folder / "config/nano.yaml"], finished.folder)
    seen = set()
    for text in finished.records().values():
        record = json.loads(text)
        stage, names = record["stage"], tuple(record["names"])
        seen.add(stage)
        module = cli.stage_module(stage)
        own = module.modules(module.params(nano, *names)) if hasattr(module, "modules") else ()
        tracked = set(provenance.closure((module.__name__, *own)))
        imported = {name for name in record["modules"] if name not in provenance.UNTRACKED and provenance.has_code(name)}
        assert imported <= tracked, f"{record['command']}: {sorted(imported - tracked)} ran but is not tracked"
    assert seen == {*STAGES} - {"fetch"}, "nano fetches nothing"
