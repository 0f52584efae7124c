"""What reruns, on finished nano runs: by Snakemake's plan, and by what was really executed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medbench.jobs import digests
from medbench.jobs import rerun as keys
from medbench.stages import STAGES
from medbench.stages import get as stage_of
from tests.conftest import ROOT, Clone, make_clone

AGGREGATES = {"gaps nano", "report nano"}
MODEL_STAGES = ("pretrain", "prepare", "embed", "prompts", "adapt", "predict")


@pytest.fixture(params=["planned", pytest.param("executed", marks=pytest.mark.full)])
def rerun(request: pytest.FixtureRequest, clone: Clone) -> Callable[[], set[str]]:
    """Jobs that a start runs: Snakemake's plan, which is a third of the time; in `make test-all` also by their records."""

    def jobs() -> set[str]:
        if request.param == "planned":
            return set(clone.plan())
        outcome = clone.snakemake()
        assert outcome.code == 0, outcome.output
        return outcome.executed

    return jobs


def stages(jobs: set[str]) -> set[str]:
    """Names of the stages among jobs."""
    return {job.split()[0] for job in jobs}


def test_added_model_runs_its_own_cells_and_the_aggregates(clone: Clone, rerun: Callable[[], set[str]]) -> None:
    clone.append(
        "config/models.yaml",
        "\nninth:\n  family: clip\n  role: specialist\n  architecture: clip\n  pretrained_on: [everyday]\n"
        "  pretrain: {corpus: [natural], steps: 5, batch_size: 16}\n",
    )
    clone.edit("config/nano.yaml", "models: [nano-clip, nano-medclip", "models: [nano-clip, nano-medclip, ninth")
    cells = {f"{stage} nano-radiology/ninth/{mode}" for stage in ("predict", "interval") for mode in ("ots", "lp", "lora")}
    own = {"pretrain ninth", *(f"{stage} nano-radiology/ninth" for stage in ("embed", "prompts"))}
    adapted = {f"adapt nano-radiology/ninth/{mode}" for mode in ("lp", "lora")}
    assert rerun() == cells | own | adapted | AGGREGATES


def test_another_recipe_of_a_model_trains_it_anew(clone: Clone) -> None:
    clone.edit("config/models.yaml", "corpus: [natural], steps: 120, pool_size: 500", "corpus: [natural], steps: 5, pool_size: 500")
    outcome = clone.snakemake("results/models/nano-clip")
    assert outcome.code == 0, outcome.output
    assert outcome.executed == {"pretrain nano-clip"}
    assert json.loads(clone.records()["pretrain nano-clip"])["shipped"] is False


def test_replaced_weights_rerun_exactly_their_model(clone: Clone) -> None:
    """A folder of weights is known by its files' bytes: other bytes of equal size and time rerun its cells, a touched file nothing."""
    folder = clone.folder / "my-weights"
    shutil.copytree(clone.folder / "results/models/nano-clip", folder)
    clone.append(
        "config/models.yaml",
        "\nmine:\n  family: clip\n  role: specialist\n  architecture: clip\n  pretrained_on: [everyday]\n  checkpoint: ./my-weights\n",
    )
    clone.edit("config/nano.yaml", "models: [nano-clip, nano-medclip", "models: [nano-clip, nano-medclip, mine")
    targets = [f"results/predictions/nano-radiology/mine/{mode}.parquet" for mode in ("ots", "lora")]
    outcome = clone.snakemake(*targets)
    assert outcome.code == 0, outcome.output
    own = {f"{stage} nano-radiology/mine" for stage in ("embed", "prompts")}
    own |= {f"{job} nano-radiology/mine/{mode}" for job, mode in (("adapt", "lora"), ("predict", "lora"), ("predict", "ots"))}
    assert outcome.executed == own
    record = json.loads(clone.records()["predict nano-radiology/mine/lora"])
    assert record["weights"] == {"checkpoint": f"sha256 {digests.tree(folder)}"} == certificate(clone, "mine")["weights"]
    file = folder / "model.safetensors"
    os.utime(file)
    assert clone.plan(*targets) == []
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert set(clone.plan(*targets)) == own


def certificate(clone: Clone, model: str) -> dict[str, Any]:
    """Of its LoRA cell."""
    found: dict[str, Any] = json.loads((clone.folder / f"results/adapters/nano-radiology/{model}/lora/certificate.json").read_text())
    return found


def test_comments_docstrings_and_resources_rerun_nothing(clone: Clone) -> None:
    clone.append("config/models.yaml", "\n# a comment\n")
    clone.append("medbench/stages/predict.py", "\n# a comment\n")
    clone.append("medbench/models/contrastive/clip.py", "\n# a comment\n")
    clone.edit("medbench/config/needs.py", "BASE_MB = 4000", "BASE_MB = 5000")
    assert clone.snakemake().executed == set()


def test_label_reruns_the_report_only(clone: Clone) -> None:
    clone.edit("config/models.yaml", '"Nano CLIP"', '"A better name"')
    outcome = clone.snakemake()
    assert outcome.executed == {"report nano"}
    assert "A better name" in (clone.folder / "results/report/nano/index.html").read_text()


@pytest.mark.full  # the keys of such an edit: tests/unit/test_edits.py
def test_architecture_file_reruns_that_architecture(clone: Clone) -> None:
    clone.append("medbench/models/contrastive/siglip.py", "\nCHANGED = 1\n")
    assert clone.plan() == []
    clone.append("medbench/models/contrastive/clip.py", "\nCHANGED = 1\n")
    planned = stages(set(clone.plan()))
    assert "embed" in planned and not {"prepare", "pretrain"} & planned


def test_bootstrap_size_reruns_intervals_and_what_follows(clone: Clone, rerun: Callable[[], set[str]]) -> None:
    clone.append("config/nano.yaml", "statistics: {n_resamples: 200}\n")
    assert stages(rerun()) == {"interval", "gaps", "report"}


def test_metric_change_reruns_no_model_job(clone: Clone, rerun: Callable[[], set[str]]) -> None:
    clone.edit("medbench/metrics/diagnosis.py", "STEP = ", "STEP = 1 * ")
    found = stages(rerun())
    assert "interval" in found and not found & set(MODEL_STAGES)


def test_code_that_no_job_uses_and_a_move_rerun_nothing(clone: Clone) -> None:
    """Keys are by definition: an added helper, an added import, a function in another file, a module of another name."""
    clone.append("medbench/metrics/diagnosis.py", "\nCHANGED = 1\n")
    clone.append("medbench/paths.py", "\n\ndef helper() -> Path:\n    return RESULTS\n")
    clone.edit("medbench/jobs/seeding.py", "import random\n", "import json\nimport random\n")
    metrics = clone.folder / "medbench/metrics"
    (metrics / "measure.py").rename(metrics / "measures.py")
    for file in (clone.folder / "medbench").rglob("*.py"):
        file.write_text(file.read_text().replace("medbench.metrics.measure ", "medbench.metrics.measures "))
    assert clone.plan() == []


@pytest.mark.full  # the keys of such an edit: tests/unit/test_edits.py
def test_one_function_reruns_what_uses_it(clone: Clone) -> None:
    """Of a task's file too: how answers are read again asks no model, and leaves diagnosis alone."""
    clone.edit(
        "medbench/tasks/vqa.py",
        'counts = Counter(table["state"].drop_nulls())',
        'counts = Counter(table["state"].drop_nulls().to_list())',
    )
    planned = set(clone.plan())
    assert {job for job in planned if job.startswith("score")} == {job for job in clone.records() if job.startswith("score nano-vqa")}
    assert not stages(planned) & set(MODEL_STAGES) and not [job for job in planned if job.startswith("interval nano-radiology")]


def test_marks_of_thoughts_and_words_of_answers_ask_no_model(clone: Clone) -> None:
    """Stored answers are raw: how they are read reruns scores, of one model where the marks are its own."""
    models = clone.folder / "config/models.yaml"
    before = models.read_text()
    clone.edit("config/models.yaml", "nano-llava:\n", "nano-llava:\n  thoughts: [['[T]', '[/T]']]\n")
    planned = set(clone.plan())
    assert {job.split("/")[1] for job in planned if job.startswith(("score", "interval"))} == {"nano-llava"}
    assert stages(planned) == {"score", "interval", "gaps", "report"}
    models.write_text(before)
    clone.edit("medbench/metrics/evaluate_modules/vqa_strict/words.py", '"de": ("ja jawohl"', '"de": ("ja jawohl jup"')
    planned = set(clone.plan())
    assert stages(planned) == {"score", "interval", "gaps", "report"}
    assert {job.split()[1].split("/")[0] for job in planned if job.startswith("score")} == {"nano-vqa-radiology"}


def test_recipe_reruns_its_mode_only_as_planned(clone: Clone) -> None:
    clone.edit("config/modes.yaml", "lp:\n  kind: probe\n", "lp:\n  kind: probe\n  n_splits: 3\n")
    planned = clone.plan()
    outcome = clone.snakemake()
    assert outcome.code == 0, outcome.output
    assert outcome.executed == set(planned)
    assert {job.split("/")[-1] for job in outcome.executed if job.startswith(("adapt", "predict"))} == {"lp"}
    assert "embed" not in stages(outcome.executed)


def test_prompt_edit_embeds_no_image_again(clone: Clone, rerun: Callable[[], set[str]]) -> None:
    path, main = clone.folder / "config/datasets.yaml", 'main: {clear: ["chest radiograph with clear lungs"]'
    before, after = path.read_text().split("nano-radiology:")
    path.write_text(before + "nano-radiology:" + after.replace(main, 'main: {clear: ["quiet chest radiograph"]'))
    assert path.read_text() != before + "nano-radiology:" + after
    jobs = rerun()
    predicted = {f"predict nano-radiology/{model}/ots" for model in ("nano-clip", "nano-medclip")}
    assert {job for job in jobs if job.startswith("predict")} == predicted
    assert not {"embed", "adapt"} & stages(jobs)


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of scikit-learn, by metadata that stands earlier on the path."""
    metadata = folder / "pretended/scikit_learn-99.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: scikit-learn\nVersion: 99.0\n")
    monkeypatch.setenv("PYTHONPATH", str(folder / "pretended"))


def test_library_version_is_stale_and_reruns_on_demand(
    clone: Clone, rerun: Callable[[], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch)
    outcome = clone.snakemake("--dry-run")
    assert "Nothing to be done" in outcome.output
    assert "STALE" not in outcome.output, "no prediction is computed with scikit-learn"

    clone.append("config/nano.yaml", "rerun_on_versions: true\n")
    jobs = rerun()
    assert {job for job in jobs if job.startswith("adapt")} == {job for job in clone.records() if job.endswith("/lp") and "adapt" in job}
    assert "embed" not in stages(jobs)


@pytest.mark.full
def test_rerun_on_versions_ends(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch)
    clone.append("config/nano.yaml", "rerun_on_versions: true\n")
    assert clone.snakemake().executed
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


CHECKS = ("medbench.datasets.layouts:one_of", "medbench.datasets.layouts.phantom:Patients")
"""They stand in annotations: what an option may be. What it is, is a parameter."""


def test_tracked_code_covers_what_is_really_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every definition of medbench that a stage executed counts as its code, but for modules that say themselves that they decide nothing.

    What the registry of stages is asked for meanwhile (where other stages' files lie) decides nothing either.
    """
    from medbench import config

    clone, file = make_clone(tmp_path / "clone"), tmp_path / "executed.json"
    validated = [f"results/validation/{cell}.parquet" for cell in ("nano-radiology/nano-clip/ots", "nano-vqa-radiology/nano-llava/lora")]
    clone.compute("all", *validated, executed=file)
    monkeypatch.chdir(clone.folder)
    nano = config.from_files([ROOT / "config/config.yaml", ROOT / "config/nano.yaml"], clone.folder)
    seen = set()
    for job, executed in json.loads(file.read_text()).items():
        stage, *names = job.replace(" ", "/").split("/")
        seen.add(stage)
        tracked = keys.closure(stage_of(stage).code(stage_of(stage).params(nano, *names)))
        missed = {name for name in executed if is_tracked(name) and not name.endswith(":STAGE")} - {*tracked, *CHECKS}
        assert not missed, f"{job}: {sorted(missed)} ran but is not tracked"
        assert executed, f"{job} was watched"
    assert seen == {*STAGES} - {"fetch", "calibrate", "judge"}, "nano fetches nothing, and nobody judges"


def is_tracked(name: str) -> bool:
    """Whether its module has rerun keys."""
    module = keys._module(name.partition(":")[0])
    assert module is not None
    return module.is_tracked


def test_a_start_looks_for_jobs_when_one_ends_unless_a_user_limits_them(tmp_path: Path) -> None:
    """Snakemake's own limit makes it look again each second, once more for every job that has ended."""
    clone = make_clone(tmp_path / "clone")
    end = "import atexit\natexit.register(lambda: print('limiter:', workflow.scheduler.job_rate_limiter, flush=True))\n"
    clone.append("Snakefile", f"\n\n{end}")
    for options, mark in (((), "limiter: None"), (("--max-jobs-per-timespan", "5/1s"), "limiter: <snakemake")):
        outcome = clone.snakemake("results/data/nano-radiology/card.json", "--force", *options)
        assert outcome.code == 0 and mark in outcome.output, outcome.output
