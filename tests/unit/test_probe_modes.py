"""The study's probe, probes with few labels, adapters against the class prompts, the spread over prompt sets, and costs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medbench import config, paths, tables
from medbench.adapt import linear, peft_layout, published_probe
from medbench.adapt.few_shot import draw_samples
from medbench.adapt.job import Samples, class_weights
from medbench.errors import MedbenchError
from medbench.metrics.measure import Measure
from medbench.models import loading
from medbench.models.checkpoint import Source
from medbench.stages import adapt, embed, interval, predict, prompts, score
from medbench.stats.resamples import Groups
from medbench.stats.table import estimates
from medbench.tasks import diagnosis
from medbench.tasks.diagnosis import PredictionsDiagnosis, SamplesDiagnosis, ScoredDiagnosis
from tests.unit import tiny
from tests.unit.test_adapt import certificate, vectors

ROOT = Path(__file__).parents[2]
FEW = {"c_values": [0.01, 1.0], "n_splits": 2, "max_iter": 1000, "labels": 6, "draws": 3}
PUBLISHED = {"learning_rate": 5e-3, "weight_decay": 0.0, "epochs": 6, "batch_size": 8}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def adapted(method: str, recipe: dict[str, Any], mode: str, **more: Any) -> Any:
    adapt.STAGE.execute(adapt.Params(f"medbench.adapt.{method}", "diagnosis", None, recipe, tiny.CLASSES, 0, **more), "tiny", "m", mode)
    return certificate("m", mode)


# --- the study's recipe


def test_the_published_recipe_is_torchs_adamw_step_by_step() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(21, 5)), rng.integers(0, 3, 21)
    weights = class_weights(labels, 3)
    recipe = {"learning_rate": 1e-2, "weight_decay": 0.1, "epochs": 3, "batch_size": 8}
    coef, intercept = published_probe.train(features, labels, weights, recipe, seed=7)
    head = torch.nn.Linear(5, 3, dtype=torch.float64)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.1)
    total = 3 * 3
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
    for epoch in range(3):
        order = np.random.default_rng((7, epoch)).permutation(21)
        for start in range(0, 21, 8):
            batch = order[start : start + 8]
            optimizer.zero_grad()
            logits = head(torch.from_numpy(features[batch]))
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[batch]), torch.from_numpy(weights)).backward()
            optimizer.step()
            falling.step()
    np.testing.assert_allclose(coef, head.weight.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(intercept, head.bias.detach().numpy(), atol=1e-10)


def test_the_published_probe_is_certified_read_back_and_predicts(data: Path) -> None:
    vectors("m")
    said = adapted("published_probe", PUBLISHED, "lp-published")
    assert said["failures"] == [] and said["loss_end"] < said["loss_start"] and said["n_trainable"] == 2
    predict.STAGE.execute(
        predict.Params("medbench.predict.probe", "diagnosis", None, tiny.CLASSES, adapted=True), "tiny", "m", "lp-published"
    )
    frame = tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "lp-published"))
    assert roc_auc_score(frame["label"], [scores[1] for scores in frame["scores"]]) > 0.6
    assert frame["draws"].null_count() == frame.height


def test_test_samples_in_the_published_probe_are_caught(data: Path) -> None:
    vectors("m")
    test = tables.read(SamplesDiagnosis, paths.samples("tiny", "test"))
    validation = tables.read(SamplesDiagnosis, paths.samples("tiny", "val"))
    tables.write(SamplesDiagnosis, pl.concat([validation, test[3:5]]), paths.samples("tiny", "val"))
    with pytest.raises(MedbenchError, match="2 test samples were used in training or selection"):
        adapted("published_probe", PUBLISHED, "lp-published")


# --- few labels


def test_draws_are_of_each_class_alike_for_every_model_and_differ_from_each_other() -> None:
    n = 60
    samples = Samples([f"s{i}" for i in range(n)], [f"g{i // 2}" for i in range(n)], np.arange(n) % 3, [f"i{i}" for i in range(n)])
    drawn = [draw_samples(samples, 3, 8, "set", 0, draw) for draw in range(5)]
    for chosen in drawn:
        assert np.bincount(samples.labels[chosen]).tolist() == [8, 8, 8]
    assert len({tuple(chosen) for chosen in drawn}) == 5
    assert draw_samples(samples, 3, 8, "other", 0, 0).tolist() != drawn[0].tolist()
    turned = Samples(*(list(reversed(values)) if isinstance(values, list) else values[::-1] for values in samples))
    again = draw_samples(turned, 3, 8, "set", 0, 0)
    assert {turned.sample_ids[place] for place in again} == {samples.sample_ids[place] for place in drawn[0]}
    assert np.bincount(samples.labels[draw_samples(samples, 3, 99, "set", 0, 0)]).tolist() == [20, 20, 20], "all where there are fewer"


def test_a_few_shot_cell_keeps_its_draws_and_its_metrics_are_means_over_them(data: Path) -> None:
    vectors("m", weight=0.15)
    said = adapted("few_shot", FEW, "lp-6")
    assert said["failures"] == [] and len(said["selection"]["draws"]) == 3
    assert all(draw["labels"] == [6, 6] for draw in said["selection"]["draws"])
    predict.STAGE.execute(predict.Params("medbench.predict.few_shot", "diagnosis", None, tiny.CLASSES, adapted=True), "tiny", "m", "lp-6")
    frame = tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "lp-6"))
    draws = np.array(frame["draws"].to_list())
    assert draws.shape == (24, 3, 2) and np.allclose(draws.mean(axis=1), np.array(frame["scores"].to_list()))
    classifiers = linear.read_all(paths.adapter_weights("tiny", "m", "lp-6"))
    assert len(classifiers) == 3 and not np.allclose(classifiers[0].coef, classifiers[1].coef)
    cell = diagnosis.scored(frame, pl.Series([], dtype=pl.String), "here")
    measure = Measure("auroc", "standard", "all")
    [value] = cell.evaluate([measure], np.ones((len(cell.groups), 1)))[measure]
    each = [roc_auc_score(frame["label"], draws[:, draw, 1]) for draw in range(3)]
    assert value == pytest.approx(np.mean(each)) and len(set(each)) > 1
    score.run(score.Params("diagnosis"), "tiny", "m", "lp-6")
    tables.write(tables.Duplicates, tables.empty(tables.Duplicates), paths.duplicates("tiny"))
    interval.run(interval.Params("diagnosis", ("auroc", "standard", "all"), 0, 200, 200, 0.95, False, 5), "tiny", "m", "lp-6")
    made = tables.read(tables.Intervals, paths.intervals("tiny", "m", "lp-6")).filter(metric="auroc", subset="all", method="percentile")
    drawn = made["replicates"][0]
    assert made["estimate"][0] == pytest.approx(np.mean(each)) and drawn.min() < made["estimate"][0] < drawn.max()


def test_one_draw_is_the_cell_itself() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.random((40, 2))
    plain = ScoredDiagnosis(
        [str(i) for i in range(40)], Groups([str(i) for i in range(40)]), {"all": np.ones(40, dtype=bool)}, labels, scores
    )
    drawn = ScoredDiagnosis(plain.ids, plain.groups, plain.subsets, labels, scores, scores[None])
    weights = rng.integers(0, 3, (40, 7)).astype(float)
    first, second = (cell.evaluate(cell.measures(), weights) for cell in (plain, drawn))
    for measure, values in first.items():
        np.testing.assert_array_equal(values, second[measure])


# --- against the class prompts


@pytest.mark.parametrize("architecture", tiny.TRAINED)
def test_adapters_against_the_prompts_tune_zero_shot_classification(data: Path, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint(architecture, data / "model")
    recipe = tiny.RECIPE | {"target": "text", "epochs": 4, "learning_rate": 3e-3, "dropout": 0.0}
    source = tiny.source(architecture, folder)._asdict()
    of_class = tuple(tiny.PROMPTS["main"][name] for name in tiny.CLASSES)
    params = adapt.Params("medbench.adapt.contrastive_lora", "diagnosis", source, recipe, tiny.CLASSES, 0, prompts=of_class)
    adapt.STAGE.execute(params, "tiny", "m", "lora-text")
    said = certificate("m", "lora-text")
    assert said["failures"] == [] and said["n_trainable"] == said["adapters"] > 0 and said["loss_end"] < said["loss_start"]
    chosen = predict.Params("medbench.predict.contrastive_lora", "diagnosis", source, tiny.CLASSES, adapted=True)
    predict.STAGE.execute(chosen, "tiny", "m", "lora-text")
    found = np.array(tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "lora-text"))["scores"].to_list())
    embed.STAGE.execute(embed.Params(Source(loading.module_name("contrastive", architecture), str(folder))._asdict(), 8), "tiny", "m")
    prompts.run(
        prompts.Params(Source(loading.module_name("contrastive", architecture), str(folder))._asdict(), tiny.CLASSES, tiny.PROMPTS),
        "tiny",
        "m",
    )
    predict.STAGE.execute(predict.Params("medbench.predict.zero_shot", "diagnosis", None, tiny.CLASSES), "tiny", "m", "ots")
    untuned = np.array(tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "ots"))["scores"].to_list())
    assert np.abs(found - untuned).max() > 1e-9
    put = peft_layout.put

    def zero(folder: Path, module: Any, saved: dict[str, torch.Tensor]) -> None:
        put(folder, module, {name: torch.zeros_like(value) if "lora_B" in name else value for name, value in saved.items()})

    monkeypatch.setattr(peft_layout, "put", zero)
    predict.STAGE.execute(chosen._replace(classes=tiny.CLASSES), "tiny", "m", "lora-text")
    again = np.array(tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "lora-text"))["scores"].to_list())
    np.testing.assert_allclose(again, untuned, atol=1e-5, err_msg="without adapters it is zero-shot classification itself")


# --- sensitivity to the wording of prompts


def test_a_cell_off_the_shelf_has_every_prompt_set(data: Path) -> None:
    folder = str(tiny.checkpoint("clip", data / "model"))
    module = loading.module_name("contrastive", "clip")
    embed.STAGE.execute(embed.Params(Source(module, folder)._asdict(), 8), "tiny", "m")
    prompts.run(prompts.Params(Source(module, folder)._asdict(), tiny.CLASSES, tiny.PROMPTS), "tiny", "m")
    predict.STAGE.execute(predict.Params("medbench.predict.zero_shot", "diagnosis", None, tiny.CLASSES), "tiny", "m", "ots")
    table = tables.read(PredictionsDiagnosis, paths.predictions("tiny", "m", "ots"))
    cell = diagnosis.scored(table, pl.Series([], dtype=pl.String), "here", ("main", "other"))
    found = estimates(cell, cell.measures())
    for place, name in enumerate(("main", "other")):
        expected = roc_auc_score(table["label"], [scores[place][1] for scores in table["by_prompts"]])
        assert found[Measure("auroc", f"prompts-{name}", "all")] == pytest.approx(expected)
    assert found[Measure("auroc", "prompts-main", "all")] == found[Measure("auroc", "standard", "all")]
    assert [measure.is_compared for measure in cell.measures()].count(False) == 2


# --- costs


def test_embedding_says_what_it_cost(data: Path) -> None:
    folder = str(tiny.checkpoint("clip", data / "model"))
    facts = embed.STAGE.execute(embed.Params(Source(loading.module_name("contrastive", "clip"), folder)._asdict(), 8), "tiny", "m")
    loaded = tiny.load("clip", Path(folder))
    assert facts["parameters"] == sum(value.numel() for value in loaded.model.parameters())
    layers = loaded.model.config.vision_config
    linear_flops = 2 * layers.num_hidden_layers * 12 * layers.hidden_size**2 * ((layers.image_size // layers.patch_size) ** 2 + 1)
    assert facts["flops_per_image"] > 0.5 * linear_flops and facts["images_per_second"] > 0


# --- the registry


def test_the_new_modes_are_of_the_right_models() -> None:
    loaded = config.from_files([ROOT / "config/nano.yaml"], ROOT)
    for mode, runs in (("lp-published", True), ("lp-16", True), ("lora-text", True), ("lp-leak-free", True), ("lora-leak-free", True)):
        assert config.can_run(loaded.models["clip"], mode, loaded.modes[mode]) is runs
    assert not config.can_run(loaded.models["nano-llava"], "lora-text", loaded.modes["lora-text"])
    assert adapt.params(loaded, "nano-radiology", "nano-clip", "lp-published").method == "medbench.adapt.published_probe"
    assert adapt.params(loaded, "nano-radiology", "nano-clip", "lp-64").method == "medbench.adapt.few_shot"
    assert predict.params(loaded, "nano-radiology", "nano-clip", "lp-64").method == "medbench.predict.few_shot"
    text = adapt.params(loaded, "nano-radiology", "nano-clip", "lora-text")
    assert text.prompts == tuple(loaded.datasets["nano-radiology"].prompts["main"][name] for name in text.classes)
    assert adapt.params(loaded, "nano-radiology", "nano-clip", "lora").prompts is None


def test_a_ninth_model_is_one_entry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    before = config.from_files([ROOT / "config/nano.yaml"], tmp_path)
    with (tmp_path / "config/models.yaml").open("a") as file:
        file.write(
            "\nninth:\n  family: clip\n  role: specialist\n  architecture: medclip\n  checkpoint: owner/ninth\n  pretrained_on: [x-ray]\n"
        )
    run = json.loads(json.dumps({**before.run.model_dump(mode="json"), "models": [*before.run.models, "ninth"]}))
    after = config.load(run, tmp_path)
    assert adapt.params(after, "nano-radiology", "ninth", "lora").source["module"] == "medbench.models.contrastive.medclip"  # type: ignore[index]
    for model in before.run.models[:2]:
        assert embed.params(after, "nano-radiology", model) == embed.params(before, "nano-radiology", model)
