"""adapt: the probe and the adapters, what they choose by, and that an interrupted training ends where an undisturbed one does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medbench import config as configuration
from medbench import paths, tables
from medbench.adapt import classifier as classifiers
from medbench.adapt import linear, pixels, probe, training
from medbench.adapt.job import Samples, class_weights, weighted_loss
from medbench.adapt.selection import Score, choose, macro_auroc
from medbench.errors import MedbenchError
from medbench.stages import adapt, embed
from medbench.tasks.diagnosis import SamplesDiagnosis
from tests.unit import tiny

PROBE = {"kind": "probe", "c_values": [0.01, 1.0], "n_splits": 4, "max_iter": 1000}
LORA = "medbench.adapt.contrastive_lora"
READS = ("medbench.tasks.diagnosis:SamplesDiagnosis", "medbench.tasks.diagnosis:samples")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.dataset()
    return tmp_path


def vectors(model: str, weight: float = 2.0, d: int = 6) -> None:
    """An embeddings table whose first feature tells the class."""
    labels: dict[str, int] = {}
    for split in paths.SPLITS:
        labels |= dict(tables.read(SamplesDiagnosis, paths.samples("tiny", split)).select("image_id", "label").iter_rows())
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(labels), d)) * 10 + 50
    features[:, 0] += 10 * weight * np.array(list(labels.values()))
    frame = pl.DataFrame(
        {"image_id": list(labels), "features": features.tolist(), "embeddings": [None] * len(labels)},
        schema=tables.columns(tables.Embeddings),
    )
    tables.write(tables.Embeddings, frame, paths.embeddings("tiny", model))


def probe_params(**recipe: Any) -> adapt.Params:
    return adapt.Params("medbench.adapt.probe", "diagnosis", None, PROBE | recipe, tiny.CLASSES, 0)


def lora_params(folder: Path, architecture: str = "clip", **recipe: Any) -> adapt.Params:
    return adapt.Params(LORA, "diagnosis", tiny.source(architecture, folder)._asdict(), tiny.RECIPE | recipe, tiny.CLASSES, 0)


def weights(model: str, mode: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(paths.adapter_weights("tiny", model, mode).iterdir())}


def certificate(model: str, mode: str) -> Any:
    return json.loads(paths.adapter_files("tiny", model, mode)[0].read_text())


# --- choosing


@given(st.integers(2, 4), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_auroc_equals_sklearns(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, 30)])
    logits = rng.integers(-3, 4, (len(labels), k)).astype(float)  # with ties
    scores = softmax(logits, axis=1)
    expected = roc_auc_score(labels, scores[:, 1]) if k == 2 else roc_auc_score(labels, scores, multi_class="ovr")
    assert macro_auroc(logits, labels) == pytest.approx(expected)


def test_auroc_is_undefined_without_every_class() -> None:
    assert macro_auroc(np.zeros((3, 2)), np.array([1, 1, 1])) is None
    assert macro_auroc(np.zeros((3, 3)), np.array([0, 1, 1])) is None


def test_the_choice_is_by_auroc_then_loss_then_order_and_by_loss_where_it_is_undefined() -> None:
    assert choose([Score(0.7, 0.1), Score(0.8, 0.5), Score(0.8, 0.4), Score(0.8, 0.4)]) == (2, "auroc")
    assert choose([Score(None, 0.3), Score(0.9, 0.5), Score(None, 0.2)]) == (2, "loss")


def test_classes_weigh_the_same() -> None:
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(class_weights(labels, 2), [4 / 6, 4 / 2])
    logits = np.log(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]))
    assert weighted_loss(logits, labels, class_weights(labels, 2)) == pytest.approx((np.log(2) + np.log(10)) / 2)


# --- the probe


def test_the_probe_is_sklearns_on_standardised_train_and_val(data: Path) -> None:
    vectors("m")
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    said = certificate("m", "lp")
    features, labels = [], []
    table = dict(tables.read(tables.Embeddings, paths.embeddings("tiny", "m")).select("image_id", "features").iter_rows())
    for split in ("train", "val"):
        frame = tables.read(SamplesDiagnosis, paths.samples("tiny", split))
        features += [table[image] for image in frame["image_id"]]
        labels += frame["label"].to_list()
    x = StandardScaler().fit_transform(np.array(features))
    expected = LogisticRegression(C=said["selection"]["C"], class_weight="balanced", max_iter=1000).fit(x, labels)
    fitted = linear.read(paths.adapter_weights("tiny", "m", "lp"))
    np.testing.assert_allclose(fitted.coef[1], expected.coef_[0], atol=1e-3)
    scores = 1 / (1 + np.exp(-np.diff(fitted.logits(np.array(features)))[:, 0]))
    np.testing.assert_allclose(scores, expected.predict_proba(x)[:, 1], atol=1e-3)
    assert said["failures"] == [] and said["converged"] and said["n_train"] == 40 and said["n_val"] == 20
    assert said["parameters_trained"] == x.shape[1], "of two classes one has coefficients"
    assert said["loss_start"] == pytest.approx(np.log(2)) and said["loss_end"] < 0.5
    assert [entry["C"] for entry in said["selection"]["candidates"]] == [0.01, 1.0]
    assert all(entry["auroc"] > 0.8 for entry in said["selection"]["candidates"])


def test_the_probe_never_looks_at_test(data: Path) -> None:
    vectors("m")
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    before = weights("m", "lp")
    path = paths.samples("tiny", "test")
    frame = tables.read(SamplesDiagnosis, path)
    tables.write(SamplesDiagnosis, frame.with_columns(1 - pl.col("label"), image_id=pl.lit("gone")), path)
    adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    assert weights("m", "lp") == before


def test_seed_and_candidates_decide_nothing_but_the_choice(data: Path) -> None:
    vectors("m")
    adapt.STAGE.execute(probe_params(c_values=[1.0]), "tiny", "m", "lp")
    adapt.STAGE.execute(probe_params(c_values=[1.0])._replace(seed=9), "tiny", "m", "other")
    one, other = (linear.read(paths.adapter_weights("tiny", "m", mode)) for mode in ("lp", "other"))
    np.testing.assert_array_equal(one.coef, other.coef)


def test_several_classes(data: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = rng.normal(size=(90, 4)) + 3 * np.eye(4)[labels]
    [fit] = probe.fits(features, labels, 3, [1.0], 1000)
    assert fit.model.coef.shape == (3, 4) and (fit.model.logits(features).argmax(axis=1) == labels).mean() > 0.9


def test_a_constant_feature_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=40), np.full(40, 0.1)])
    [fit] = probe.fits(features, (features[:, 0] > 0).astype(int), 2, [1.0], 1000)
    assert np.isfinite(fit.model.logits(features)).all() and abs(fit.model.coef[1, 1]) < 1e-9


@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_folds_share_no_group_and_fit_on_every_class(n_splits: int, n_groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, n_groups, 40), np.concatenate([[0, 1], rng.integers(0, 2, 38)])
    samples = Samples([str(i) for i in range(40)], [str(group) for group in groups], labels, [])
    parts = probe.folds(samples, 2, n_splits, seed)
    held = np.concatenate([fold.held for fold in parts]) if parts else np.array([])
    assert len(set(held)) == len(held)
    for fold in parts:
        assert set(groups[fold.fit]).isdisjoint(groups[fold.held])
        assert set(labels[fold.fit]) == {0, 1} and len(fold.held)


def relabel(split: str, expression: Any, **more: Any) -> None:
    path = paths.samples("tiny", split)
    frame = tables.read(SamplesDiagnosis, path)
    tables.write(SamplesDiagnosis, frame.with_columns(label=pl.lit(expression, dtype=pl.Int16), **more), path)


def test_one_class_is_not_enough(data: Path) -> None:
    vectors("m")
    relabel("train", 1)
    relabel("val", 1)
    with pytest.raises(MedbenchError, match="cell tiny/m/lp: train holds 1 class of 2"):
        adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")
    with pytest.raises(MedbenchError, match="no sample of class 'third'"):
        tiny.dataset()
        adapt.STAGE.execute(probe_params()._replace(classes=(*tiny.CLASSES, "third")), "tiny", "m", "lp")
    assert not paths.adapter("tiny", "m", "lp").exists() and not list((data / "results/.partial").iterdir())


def test_a_single_group_cannot_be_validated_on(data: Path) -> None:
    vectors("m")
    for split in ("train", "val"):
        path = paths.samples("tiny", split)
        tables.write(SamplesDiagnosis, tables.read(SamplesDiagnosis, path).with_columns(group_id=pl.lit("all")), path)
    with pytest.raises(MedbenchError, match="1 groups in train and val leave no split"):
        adapt.STAGE.execute(probe_params(), "tiny", "m", "lp")


def test_a_candidate_that_does_not_converge_is_not_chosen(data: Path) -> None:
    vectors("m", d=30)
    adapt.STAGE.execute(probe_params(c_values=[1e-3, 1e6], max_iter=8), "tiny", "m", "lp")
    said = certificate("m", "lp")
    assert [entry["converged"] for entry in said["selection"]["candidates"]] == [True, False]
    assert said["selection"]["C"] == 1e-3 and said["converged"]


def test_an_unfinished_solver_is_an_error(data: Path) -> None:
    vectors("m")
    with pytest.raises(MedbenchError, match="the solver did not converge"):
        adapt.STAGE.execute(probe_params(max_iter=1), "tiny", "m", "lp")


# --- adapters


@pytest.mark.parametrize("architecture", tiny.TRAINED)
def test_adapters_and_head_learn_and_say_what_they_did(data: Path, architecture: str) -> None:
    folder = tiny.checkpoint(architecture, data / "model")
    adapt.STAGE.execute(lora_params(folder, architecture, epochs=4), "tiny", "m", "lora")
    said = certificate("m", "lora")
    model = tiny.load(architecture, folder)
    linear = [name for name, _ in model.vision.named_modules() if re.fullmatch(model.lora_targets, name)]
    assert said["adapters"] == 2 * len(linear) > 0
    assert said["n_trainable"] == said["adapters"] + 2 == said["n_with_gradient"]
    assert said["loss_start"] == pytest.approx(np.log(2)) and said["loss_end"] < said["loss_start"]
    assert said["frozen_before"] == said["frozen_after"] and said["reload_difference"] == 0 == said["repeat_difference"]
    assert {tensor["measure"] for tensor in said["tensors"]} == {"relative", "absolute"}
    assert all(tensor["moved"] > 0 for tensor in said["tensors"])
    scores = [Score(entry["auroc"], entry["loss"]) for entry in said["selection"]["candidates"]]
    assert len(scores) == 4 and said["selection"]["epoch"] == choose(scores).position + 1
    assert not list((data / "results/.partial").iterdir())


def test_adapters_never_look_at_test(data: Path) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    adapt.STAGE.execute(lora_params(folder, epochs=1), "tiny", "m", "lora")
    before = weights("m", "lora")
    path = paths.samples("tiny", "test")
    frame = tables.read(SamplesDiagnosis, path)
    images = tables.read(tables.Images, paths.images("tiny"))
    tables.write(tables.Images, images.filter(~pl.col("image_id").is_in(frame["image_id"].to_list())), paths.images("tiny"))
    tables.write(SamplesDiagnosis, frame.with_columns(1 - pl.col("label")), path)
    adapt.STAGE.execute(lora_params(folder, epochs=1), "tiny", "m", "lora")
    assert weights("m", "lora") == before


class _Killed(BaseException):
    """Stands for a signal: nothing of ours catches it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, wanted: tuple[int, int], steps: list[tuple[int, int]]) -> None:
    """Kill the training when it begins a step (epoch, step) for the first time; `steps` lists all that are begun."""
    backward = training.Training._backward

    def step(self: training.Training, batch: Any, epoch: int) -> Any:
        steps.append((epoch, self.step))
        if steps[-1] == wanted and steps.count(wanted) == 1:
            raise _Killed
        return backward(self, batch, epoch)

    monkeypatch.setattr(training.Training, "_backward", step)


@pytest.mark.parametrize("step", [0, 2])
def test_an_interrupted_training_ends_as_an_undisturbed_one(data: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Between epochs, and within one where a state is kept after every step."""
    params = lora_params(tiny.checkpoint("clip", data / "model"), epochs=3)
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    undisturbed = weights("m", "lora"), certificate("m", "lora")
    paths.adapter_files("tiny", "m", "lora")[0].unlink()
    steps: list[tuple[int, int]] = []
    killed_at(monkeypatch, (1, step), steps)
    monkeypatch.setattr(training.Training, "_is_due", lambda self: True)
    with pytest.raises(_Killed):
        adapt.STAGE.execute(params, "tiny", "m", "lora")
    assert not paths.adapter_files("tiny", "m", "lora")[0].exists()
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    assert sorted(steps) == sorted([*((epoch, step) for epoch in range(3) for step in range(3)), (1, step)])  # one step begun twice
    assert (weights("m", "lora"), certificate("m", "lora")) == undisturbed
    assert not list((data / "results/.partial").iterdir())


def test_a_kill_at_nine_tenths_costs_at_most_a_fifth(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, by a clock that the steps themselves move: one epoch of 40 steps of a minute; keeping a state takes two seconds."""
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    backward, save, steps = training.Training._backward, torch.save, []

    def step(self: training.Training, batch: Any, epoch: int) -> Any:
        steps.append(self.step)
        if len(steps) == 37:
            raise _Killed
        clock[0] += 60
        return backward(self, batch, epoch)

    def saved(*given: Any) -> None:
        clock[0] += 2
        save(*given)

    monkeypatch.setattr(training.Training, "_backward", step)
    monkeypatch.setattr(torch, "save", saved)
    params = lora_params(tiny.checkpoint("clip", data / "model"), epochs=1, batch_size=1)
    with pytest.raises(_Killed):
        adapt.STAGE.execute(params, "tiny", "m", "lora")
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    assert len(steps) - 1 <= 1.2 * 40
    assert clock[0] <= 60 * 48 * (1 + training.SHARE)


@pytest.mark.parametrize("spoiled", ["origin", "truncated"])
def test_a_state_of_something_else_is_not_resumed(data: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    params = lora_params(tiny.checkpoint("clip", data / "model"), epochs=2)
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    undisturbed = weights("m", "lora")
    resume = training.Training.resume

    def planted(self: training.Training) -> None:
        with torch.no_grad():
            before = training.copy(self.learner.saved())
            self.learner.restore({name: torch.full_like(value, 7.0) for name, value in before.items()})
            plan, self.history = self.plan, [(1.0, 0.0)]
            self.plan = plan._replace(origin="other") if spoiled == "origin" else plan
            self.keep()
            self.learner.restore(before)
            self.plan, self.history = plan, []
        if spoiled == "truncated":
            self.state.write_bytes(self.state.read_bytes()[:1000])
        resume(self)

    monkeypatch.setattr(training.Training, "resume", planted)
    adapt.STAGE.execute(params, "tiny", "m", "lora")
    assert weights("m", "lora") == undisturbed


def test_mapped_pixels_and_recomputed_activations_change_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    tensors = []
    for mode, limit, recomputed in (("plain", 2**30, False), ("lean", 0, True)):
        monkeypatch.setattr(pixels, "IN_MEMORY", limit)
        adapt.STAGE.execute(lora_params(folder, gradient_checkpointing=recomputed, epochs=2), "tiny", "m", mode)
        adapted = classifiers.read(paths.adapter_weights("tiny", "m", mode), tiny.load("clip", folder))
        tensors.append(adapted.saved())
    for name, value in tensors[0].items():
        torch.testing.assert_close(value, tensors[1][name])


def test_the_seed_decides_the_adapters(data: Path) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    for mode, seed in (("one", 0), ("two", 1), ("three", 0)):
        adapt.STAGE.execute(lora_params(folder, epochs=1)._replace(seed=seed), "tiny", "m", mode)
    assert weights("m", "one") == weights("m", "three") != weights("m", "two")


def test_a_validation_split_of_one_class_chooses_by_loss(data: Path) -> None:
    relabel("val", 0)
    adapt.STAGE.execute(lora_params(tiny.checkpoint("clip", data / "model"), epochs=2), "tiny", "m", "lora")
    said = certificate("m", "lora")["selection"]
    assert said["by"] == "loss" and [entry["auroc"] for entry in said["candidates"]] == [None, None]
    assert said["epoch"] == 1 + int(np.argmin([entry["loss"] for entry in said["candidates"]]))


def test_a_loss_that_is_not_finite_is_an_error(data: Path) -> None:
    folder = tiny.checkpoint("clip", data / "model")
    with pytest.raises(MedbenchError, match="cell tiny/m/lora: the training loss is not finite in epoch 1"):
        adapt.STAGE.execute(lora_params(folder, learning_rate=1e20, head_learning_rate=1e20, warmup=0.0), "tiny", "m", "lora")
    assert not paths.adapter("tiny", "m", "lora").exists()


def test_a_loss_that_is_not_finite_ends_a_long_epoch_early_and_is_in_no_state(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = lora_params(tiny.checkpoint("clip", data / "model"), learning_rate=1e20, head_learning_rate=1e20, warmup=0.0, batch_size=2)
    steps: list[tuple[int, int]] = []
    killed_at(monkeypatch, (9, 9), steps)  # never: it only lists them
    monkeypatch.setattr(training.Training, "_is_due", lambda self: True)
    with pytest.raises(MedbenchError, match="cell tiny/m/lora: the training loss is not finite in epoch 1"):
        adapt.STAGE.execute(params, "tiny", "m", "lora")
    assert len(steps) < 10, "of 20"


def test_the_schedule_rises_and_falls() -> None:
    rates = [training.schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1 and rates[55] == pytest.approx(0.5) and 0 < rates[99] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert training.schedule(0, 1, 0.0) == 1


# --- params


def test_params_hold_what_changes_the_weights_and_no_more() -> None:
    config = configuration.from_files([Path(__file__).parents[2] / "config" / "nano.yaml"], Path(__file__).parents[2])
    model, dataset = config.run.models[0], config.run.datasets[0]
    lp, lora = (adapt.params(config, dataset, model, mode) for mode in ("lp", "lora"))
    assert lp.source is None and adapt.uses(lp) == ("medbench.adapt.probe", *READS)
    assert lora.source is not None and lora.source["checkpoint"] == str(paths.model_folder(model))
    assert adapt.uses(lora) == (LORA, *READS, "medbench.models.contrastive.clip")
    assert lora.recipe == configuration.recipe(config, model, "lora").model_dump(mode="json") and set(lora.recipe) == set(tiny.RECIPE)
    with pytest.raises(MedbenchError, match="adapts no contrastive model"):
        adapt.params(config, dataset, model, "ots")
    assert embed.params(config, dataset, model).source["checkpoint"] == lora.source["checkpoint"]
