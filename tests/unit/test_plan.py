"""`plan`: sizes, what lies in caches, what fits, how long jobs take and what corrects that, which gaps will show."""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medbench import cli, config, paths
from medbench.config import Config, needs
from medbench.metrics.judging import calibration
from medbench.planning import downloads, effort, memory, probe, sizes, verdicts
from medbench.planning.probe import REFERENCE
from medbench.remote import endpoint
from medbench.schedule import jobs
from medbench.stages import calibrate
from tests.conftest import ROOT
from tests.unit import checkpoints

LORA = ("phantom-radiology", "mini-clip", "lora")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "MEDBENCH_DATA", "MEDBENCH_REAL_DATA"):
        monkeypatch.delenv(name, raising=False)
    downloads._scan.cache_clear()
    return tmp_path


@cache
def loaded_run(file: str) -> Config:
    return config.from_files([ROOT / "config" / file], ROOT)


def of_run(name: str = "demo", **changes: Any) -> Config:
    loaded = loaded_run({"demo": "config.yaml"}.get(name, f"{name}.yaml"))
    return loaded._replace(run=loaded.run.model_copy(update=changes))


# --- sizes


def test_sizes_before_a_set_is_prepared() -> None:
    study = of_run("paper")
    assert sizes.of(study, "ham10000")[:2] == (8137, 1811) and sizes.of(study, "ham10000").origin == "published"
    assert sizes.of(study, "camelyon17").groups == 10 / 2, "ten slides, two classes"
    drawn = sizes.of(of_run(), "phantom-vqa-radiology")
    assert (drawn.train, drawn.test, drawn.images, drawn.groups) == (1200, 800, 500, 100)


@pytest.mark.parametrize("patients", [1, 3])
def test_a_table_of_ones_own_is_counted_with_its_groups(folder: Path, patients: int) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    rows = [f"a.png,{('no', 'yes')[n % 2]},{'test' if n < 8 else 'train'},P{n % (2 * patients)}" for n in range(20)]
    (folder / "labels.csv").write_text("\n".join(["image,label,split,group", *rows]))
    loaded = of_run()
    entry = loaded.datasets["phantom-radiology"].model_copy(
        update={"layout": "table", "options": {}, "raw_dir": str(folder), "classes": ("no", "yes")}
    )
    found = sizes.of(loaded._replace(datasets={**loaded.datasets, "own": entry}), "own")
    assert (found.train, found.test, found.is_exact, found.origin) == (12, 8, True, "counted in its files")
    assert found.groups == pytest.approx({1: 1.0, 3: 16 / 6}[patients])


# --- downloads


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = folder / "hub"
    monkeypatch.setattr(downloads.constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(downloads, "scan_cache_dir", lambda: scanned(place))
    return place


def scanned(place: Path) -> Any:
    from huggingface_hub import scan_cache_dir

    return scan_cache_dir(place)


def state(name: str) -> str:
    downloads._scan.cache_clear()
    [found] = [one for one in downloads.wanted(of_run("paper")) if one.name == name]
    return found.state


@pytest.mark.parametrize("name", ["clip", "biomedclip", "qwen2-vl", "llava-med"])
def test_weights_count_as_here_once_the_cache_holds_the_pinned_ones_whole(name: str, hub: Path) -> None:
    assert state(name) == downloads.FETCH
    checkpoints.cached(name, hub)
    assert state(name) == downloads.HERE
    main = checkpoints.REPOSITORIES[name][0]
    for file in (hub / f"models--{main.name.replace('/', '--')}" / "snapshots").rglob("*"):
        if file.suffix in (".safetensors", ".bin"):
            file.unlink()
            break
    assert state(name) == downloads.PART


def test_another_commit_than_the_pinned_one_is_to_fetch(hub: Path) -> None:
    checkpoints.cached("clip", hub)
    [snapshot] = (hub / "models--openai--clip-vit-base-patch32/snapshots").iterdir()
    snapshot.rename(snapshot.with_name("f" * 40))
    assert state("clip") == downloads.FETCH


def test_a_size_that_nobody_states_is_not_invented(hub: Path) -> None:
    found = {one.name: one for one in downloads.wanted(of_run("paper"))}
    assert found["chexpert"].bytes is None and found["chexpert"].state == downloads.APPLY
    assert found["camelyon17"].bytes == 10_658_709_504 and found["slake"].bytes == 212_000_000
    assert found["medgemma"].access == "gated" and found["medgemma"].bytes == 2 * 4_300_079_472
    assert "o3" not in found
    [disk] = downloads.disks(of_run("paper"), found.values(), 5)
    assert "chexpert" in disk.unknown and disk.needed > 2 * 10_658_709_504 and disk.free > 0


def test_official_files_that_are_there_are_here(hub: Path, folder: Path) -> None:
    paths.fetched("slake").parent.mkdir(parents=True)
    paths.fetched("slake").write_text("{}")
    (folder / "raw/chexpert/CheXpert-v1.0-small").mkdir(parents=True)
    (folder / "raw/pathvqa/data").mkdir(parents=True)
    found = {one.name: one.state for one in downloads.wanted(of_run("paper"))}
    assert (found["slake"], found["chexpert"], found["pathvqa"]) == (downloads.HERE, downloads.HERE, downloads.PART)


# --- GPUs


@pytest.mark.parametrize(("mb", "fits"), [("81920", True), ("24564", False), ("", None)])
def test_models_are_held_against_the_gpus_that_are_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, mb: str, fits: bool | None) -> None:
    script = folder / "bin/nvidia-smi"
    script.parent.mkdir()
    listed = "GPU 0: NVIDIA A (UUID: GPU-1)" if mb else ""
    script.write_text(f'#!/bin/sh\ncase "$1" in -L) echo "{listed}";; *) echo "0, GPU-1, {mb}";; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    from medbench import cells
    from medbench.jobs import devices

    study = of_run("paper")
    found = {one.model: one for one in memory.of_models(study, cells.grid(study), [], devices.memory_mb())}
    assert found["llava-1.5"].fits is fits and found["clip"].fits is (None if fits is None else True)
    assert found["llava-1.5"].adapted == pytest.approx(7063427072 * 2 * 1.75 / 1e6)
    assert "o3" not in found


def test_quantised_and_spread_models_take_less_of_each_gpu() -> None:
    models = of_run("paper").models
    assert needs.gpu_mb(models["qwen2.5-vl-72b-4bit"], False) == pytest.approx(73410777344 * 0.5 * 1.25 / 1e6)
    taken = effort.Recorded("adapt", ("slake", "lingshu-32b", "lora"), 9.0, "cuda", False, 50_000.0)
    loaded = of_run("paper", models=("lingshu-32b",))
    from medbench.cells import Cell

    [found] = memory.of_models(loaded, [Cell("slake", "lingshu-32b", "lora")], [taken], [80_000, 80_000])
    assert (found.gpus, found.adapted, found.source, found.fits) == (2, 25_000, "finished jobs", True)


# --- time


def estimator(loaded: Config, speed: probe.Speed | None = REFERENCE, n_gpus: int = 0) -> effort.Estimator:
    return effort.Estimator(loaded, speed, n_gpus)


def test_a_machine_half_as_fast_takes_twice_as_long() -> None:
    slow = REFERENCE._replace(start=2 * REFERENCE.start, torch=2 * REFERENCE.torch, image=2 * REFERENCE.image, flops=REFERENCE.flops / 2)
    todo = jobs(of_run())
    fast, late = (
        sum(one.of(job.stage, job.names).seconds or 0 for job in todo) for one in (estimator(of_run()), estimator(of_run(), slow))
    )
    assert late == pytest.approx(2 * fast)


def record(stage: str, names: tuple[str, ...], seconds: float, table: Path, forked: bool = True) -> None:
    file = paths.run_record(table)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"stage": stage, "names": names, "seconds": seconds, "device": "cpu", "forked": forked}))


def test_finished_jobs_of_the_same_stage_and_model_correct_the_estimate() -> None:
    demo = of_run()
    before = estimator(demo).of("adapt", LORA)
    assert before.source == "probe" and before.seconds
    record("adapt", LORA, 3 * before.seconds, paths.adapter_files(*LORA)[0])
    other = ("phantom-pathology", *LORA[1:])
    found = estimator(demo).of("adapt", other)
    assert found.source == "records" and found.seconds == pytest.approx(3 * before.seconds, rel=0.05)
    alone = estimator(demo, None)
    assert alone.of("adapt", other).seconds == pytest.approx(found.seconds), "without a probe too"
    assert alone.of("embed", LORA[:2]) == effort.Effort("embed", LORA[:2], None, 0.0, False, "unknown")


def test_small_models_that_finished_say_nothing_of_large_ones() -> None:
    record("adapt", LORA, 5.0, paths.adapter_files(*LORA)[0])
    study = of_run("paper")
    assert estimator(study, None).of("adapt", ("ham10000", "clip", "lora")).source == "unknown"
    record("adapt", ("papila", "clip", "lora"), 500.0, paths.adapter_files("papila", "clip", "lora")[0], forked=False)
    assert estimator(study, None).of("adapt", ("ham10000", "clip", "lora")).source == "records"
    assert estimator(study, None).of("adapt", ("ham10000", "plip", "lora")).source == "unknown"


def test_jobs_that_mostly_started_are_not_taken_to_larger_data() -> None:
    """Twenty images that took six minutes on a busy machine say nothing of 223,648."""
    study, names = of_run("paper"), ("chexpert", "clip")
    before = estimator(study).of("embed", names).seconds or 0
    tiny = estimator(study)
    tiny.size = lambda dataset: sizes.Size(16, 4, 20, None, True, "prepared")  # type: ignore[method-assign]
    [factors] = {*tiny._corrections([effort.Recorded("embed", ("papila", "clip"), 360.0, "cpu", False, None)]).values()}
    assert factors.work == 1 and factors.fixed > 10
    record("embed", ("papila", "clip"), 360.0, paths.embeddings("papila", "clip"), forked=False)
    after = estimator(study).of("embed", names)
    assert after.source == "records" and before and (after.seconds or 0) > 0


def test_gpu_hours_are_those_of_the_rule_and_fall_on_a_gpu_where_one_is_seen() -> None:
    study, names = of_run("paper"), ("pathvqa", "qwen2-vl", "lora")
    here, there = estimator(study).of("adapt", names), estimator(study, n_gpus=2).of("adapt", names)
    assert here.gpu_seconds == there.gpu_seconds > 3600 and there.seconds and here.seconds and there.seconds < here.seconds
    assert (here.source, there.source) == ("probe", "rule")
    total = estimator(study, n_gpus=2).total([there, there], 4)
    assert total.gpu_hours == pytest.approx(2 * there.gpu_seconds / 3600) and there.seconds < total.seconds < 1.2 * there.seconds
    assert estimator(study).of("predict", ("slake", "o3", "ots")).seconds is None, "an endpoint's speed is not known"


def test_a_probe_that_is_cut_off_says_what_it_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    said = """import time; print('{"start": 0.5}', flush=True); print('{"tor', end='', flush=True); time.sleep(60)"""
    plain = probe.subprocess.Popen
    monkeypatch.setattr(probe.subprocess, "Popen", lambda command, **rest: plain([sys.executable, "-c", said], **rest))
    found = probe.look(2, 1.5)
    assert found is not None and (found.start, found.processes, found.gpu_flops) == (0.5, 2, None)
    assert found.image == pytest.approx(2 * REFERENCE.image) and found.flops == pytest.approx(REFERENCE.flops / 2)


# --- verdicts


def test_the_gap_that_shows_follows_from_groups_and_comparisons() -> None:
    assert verdicts.expected_sd("closed_accuracy", 100) == pytest.approx((0.7 * 0.3 / 100) ** 0.5)
    many, few = verdicts.expected_sd("auroc", 400), verdicts.expected_sd("auroc", 100)
    assert many == pytest.approx(few / 2, rel=0.01)
    study = of_run("paper")
    found = {one.dataset: one for one in verdicts.outlooks(study, lambda name: sizes.of(study, name))}
    assert found["camelyon17"].no_verdict.startswith("10 groups at most") and found["camelyon17"].detectable is None
    assert 0 < (found["pathvqa"].detectable or 0) < (found["vqa-rad"].detectable or 0) and not found["pathvqa"].is_exact


def test_questions_that_are_not_asked_are_named() -> None:
    alone = of_run("nano", modes=("ots",), models=("nano-clip", "nano-medclip"), datasets=("nano-radiology",))
    [one] = [line for line in verdicts.unasked(alone) if line.startswith("RQ2")]
    assert "no model is adapted" in one


# --- the verb


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["plan", *words]) == 0
    return capsys.readouterr().out


def test_the_demo_needs_no_download_and_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "--no-probe")
    assert said.startswith("run demo: 72 cells, 261 jobs, of which 261 are to do and 0 are finished\n")
    assert "downloads: none; 6 models and 6 data sets here already" in said and "no model of the run needs a GPU" in said
    assert "time: not known without a probe" in said and list(folder.iterdir()) == []
    found = json.loads(run(capsys, "--no-probe", "--json"))
    assert found["cells"] == {"all": 72, "finished": 0} and found["jobs"] == {"all": 261, "waiting": 261}
    assert sum(one["to_do"] for one in found["stages"].values()) == 261


def test_what_endpoints_cost_at_most_is_said(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "is_past", lambda day: False)  # on any day before the study's services are shut down
    found = json.loads(run(capsys, "--no-probe", "--json", "paper"))["endpoints"]
    assert [one["model"] for one in found] == ["o3", "gemini-2.5-pro"]
    assert all(one["questions"] > 8000 and one["dollars"] > 100 for one in found)
    said, most = run(capsys, "--no-probe", "paper"), sum(one["dollars"] for one in found)
    assert f"\nendpoints: at most {most:,.2f} $\n  o3: about " in said
    for dataset in ("slake", "pathvqa", "vqa-rad"):
        answers = folder / paths.predictions(dataset, "o3", "ots")
        answers.parent.mkdir(parents=True)
        answers.touch()
    assert "o3: about" not in run(capsys, "--no-probe", "paper"), "what is answered is paid for"


def test_cells_of_a_service_that_was_shut_down_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "is_past", lambda day: day is not None)
    found = json.loads(run(capsys, "--no-probe", "--json", "paper"))
    assert found["endpoints"] == [] and {"slake/o3/ots", "slake/gemini-2.5-pro/ots"} <= set(found["left_out"])
    day = of_run("paper").models["gemini-2.5-pro"].retired_on
    why = f"gemini-2.5-pro was shut down on {day}, and none of its answers is kept in store"
    assert f"\nLEFT OUT: slake/gemini-2.5-pro/ots: {why}\n" in run(capsys, "--no-probe", "paper")
    cli.main(["why", "slake/gemini-2.5-pro/ots", "--run", "paper"])
    assert f"ots.parquet: absent: its cell is left out of the run, since {why}\n" in capsys.readouterr().out


def judged(folder: Path, **judge: Any) -> str:
    """A run with a judge that is paid for and one of one's own that is not pinned."""
    own = {"family": "qwen-vl", "role": "generalist", "architecture": "qwen2-5-vl", "checkpoint": "Qwen/own", "pretrained_on": ["everyday"]}
    (folder / "models.yaml").write_text(json.dumps({"own": own}))
    run = {"run": "judged", "registries": {"models": "models.yaml"}, "models": ["mini-llava"], "datasets": ["nano-vqa-radiology"]}
    (folder / "judged.yaml").write_text(json.dumps({**run, "modes": ["ots"], "judge": {"models": ["o3", "own"], **judge}}))
    return "judged.yaml"


def test_judges_are_planned_like_models(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run(capsys, "--no-probe", "--json", judged(folder)))
    assert found["stages"]["calibrate"]["to_do"] == 2 and found["stages"]["judge"]["unknown"] == 3
    assert [one["model"] for one in found["gpu_memory_mb"]] == ["own"]
    assert [(one["name"], one["state"]) for one in found["downloads"] if one["kind"] == "model"] == [
        ("mini-llava", "here"),
        ("own", "to fetch"),
    ]
    loaded = config.from_files([ROOT / "config/config.yaml", Path("judged.yaml")], ROOT)
    assert [line.partition(",")[0] for line in cli.unpinned(loaded)] == ["model own"]
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    assert cli.secrets(loaded) == ["OPENAI_API_KEY"]


def test_what_judging_costs_at_most_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def endpoints(**judge: Any) -> list[dict[str, Any]]:
        return list(json.loads(run(capsys, "--no-probe", "--json", judged(folder, **judge)))["endpoints"])

    [once], [twice], [published] = endpoints(), endpoints(repeats=2), endpoints(scorings=["published"])
    rows, cells, items = needs.test_rows(of_run("nano"), "nano-vqa-radiology"), 3, len(calibration.items(calibrate.ITEMS))
    assert once["questions"] == 2 * (items + cells * (rows + 30)) and once["dollars"] > 0, "one more try of each that cannot be read"
    assert twice["questions"] == 2 * (items + cells * (2 * rows + 30)) and published["questions"] * 2 == once["questions"]
    assert f"judge o3: at most {once['questions']:,} judgements" in run(capsys, "--no-probe", judged(folder))
    for made in (paths.calibration("o3"), paths.judgements("nano-vqa-radiology", "mini-llava", "ots")):
        (folder / made).parent.mkdir(parents=True)
        (folder / made).touch()
    assert endpoints()[0]["questions"] == 2 * 2 * (rows + 30), "what is judged is paid for"


def test_a_calibration_that_failed_or_was_forged_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = folder / paths.log("calibrate", "o3")
    log.parent.mkdir(parents=True)
    log.write_text("ERROR: OPENAI_API_KEY is not set\n")
    assert cli.main(["status", judged(folder)]) == 0
    said = capsys.readouterr().out
    assert "calibrate o3: OPENAI_API_KEY is not set" in said and "behind a failed job: calibrate o3" in said
    made = folder / paths.calibration("o3")
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    cli.main(["verify", "judged.yaml"])
    assert "results/calibration/o3.json" in capsys.readouterr().out


def test_too_little_disk_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_free", lambda folder: 10)
    assert "TOO LITTLE" in run(capsys, "--no-probe", "nano")


def test_a_run_may_have_the_name_of_its_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As those of `try` have."""
    chosen = "{run: phantom-radiology, models: [mini-clip], datasets: [phantom-radiology], modes: [ots]}"
    (folder / "mine.yaml").write_text(chosen)
    assert run(capsys, "--no-probe", "mine.yaml").startswith("run phantom-radiology: 2 cells, ")
