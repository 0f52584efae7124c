"""Diagnosis metrics: against scikit-learn and torchmetrics where they define the same, properties, and hand-computed cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medbench.metrics import diagnosis
from medbench.models.similarity import log_softmax


def ones(n: int) -> np.ndarray:
    return np.ones((n, 1))


def binary(score_1: list[float] | np.ndarray) -> np.ndarray:
    score_1 = np.asarray(score_1, dtype=float)
    return np.column_stack([1 - score_1, score_1])


def drawn(n_classes: int, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with many ties, every class present."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), generator.integers(0, n_classes, n - n_classes)])
    raw = np.round(generator.random((n, n_classes)) + 0.5 * np.eye(n_classes)[labels], 1) + 0.01
    return labels, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_agree_with_scikit_learn_on_repeated_samples(n_classes: int) -> None:
    labels, scores = drawn(n_classes)
    weights = np.random.default_rng(1).integers(0, 4, (len(labels), 5))
    made = diagnosis.metrics(labels, scores, weights.astype(float))
    for column in range(weights.shape[1]):
        repeated = np.repeat(np.arange(len(labels)), weights[:, column])
        y, s = labels[repeated], scores[repeated]
        predicted = s.argmax(axis=1)
        truth = np.eye(n_classes)[y]
        positive = s[:, 1] if n_classes == 2 else s
        average = "binary" if n_classes == 2 else "macro"
        expected = {
            "auroc": sk.roc_auc_score(y, positive, multi_class="ovr"),
            "auprc": sk.average_precision_score(y if n_classes == 2 else truth, positive),
            "accuracy": sk.accuracy_score(y, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
            "f1": sk.f1_score(y, predicted, average=average),
        }
        sensitivities = []
        for c in diagnosis.positive_classes(n_classes):
            fpr, tpr, _ = sk.roc_curve(truth[:, c], s[:, c], drop_intermediate=False)
            sensitivities.append(tpr[fpr <= 0.1 + 1e-12].max())
        expected["sensitivity_at_90_specificity"] = np.mean(sensitivities)
        for name, value in expected.items():
            assert getattr(made, name)[column] == pytest.approx(value, abs=1e-12), name
    assert diagnosis.auroc(labels, scores, weights.astype(float)).tolist() == made.auroc.tolist()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_calibration_error_agrees_with_torchmetrics(n_classes: int) -> None:
    torch = pytest.importorskip("torch")
    calibration = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    generator = np.random.default_rng(2)
    labels = generator.integers(0, n_classes, 500)
    scores = generator.dirichlet(np.ones(n_classes), 500)
    expected = calibration(torch.tensor(scores), torch.tensor(labels), n_classes, n_bins=diagnosis.N_BINS).item()
    assert diagnosis.metrics(labels, scores, ones(500)).ece[0] == pytest.approx(expected, abs=1e-6)


def test_sensitivity_counts_whole_samples_at_exactly_90_percent() -> None:
    """One of ten negatives may lie above the threshold; with a tie across it, neither of the tied may."""
    labels = np.array([1, 1, 1, *[0] * 10])
    one_above = [0.9, 0.7, 0.05, 0.8, *[0.1] * 9]
    assert diagnosis.metrics(labels, binary(one_above), ones(13)).sensitivity_at_90_specificity[0] == pytest.approx(2 / 3)
    two_tied_with_the_second = [0.9, 0.7, 0.2, 0.7, 0.7, *[0.1] * 8]
    assert diagnosis.metrics(labels, binary(two_tied_with_the_second), ones(13)).sensitivity_at_90_specificity[0] == pytest.approx(1 / 3)
    all_below = [0.3, 0.2, 0.1, 0.9, 0.8, *[0.05] * 8]
    assert diagnosis.metrics(labels, binary(all_below), ones(13)).sensitivity_at_90_specificity[0] == 0


def test_calibration_error_by_hand() -> None:
    """Two samples in the bin of 0.9 (one wrong), one in the bin of 0.6 (right): (2 * |0.9 - 0.5| + |0.6 - 1|) / 3."""
    made = diagnosis.metrics(np.array([1, 0, 1]), binary([0.9, 0.9, 0.6]), ones(3))
    assert made.ece[0] == pytest.approx((0.8 + 0.4) / 3, abs=1e-9)


def test_certain_scores_fall_into_the_last_bin() -> None:
    assert diagnosis.metrics(np.array([1, 0]), binary([1.0, 0.0]), ones(2)).ece[0] == 0


def test_an_absent_class_leaves_what_does_not_need_it() -> None:
    made = diagnosis.metrics(
        np.array([0, 1, 1, 0]), np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]), ones(4)
    )
    for name in ("auroc", "auprc", "balanced_accuracy", "f1", "sensitivity_at_90_specificity"):
        assert np.isnan(getattr(made, name)[0]), name
    assert made.accuracy[0] == 0.75
    assert made.ece[0] > 0


def test_one_class_and_no_weight_are_undefined_not_zero() -> None:
    only_negative = diagnosis.metrics(np.array([0, 0]), binary([0.2, 0.9]), ones(2))
    assert np.isnan([only_negative.auroc[0], only_negative.auprc[0], only_negative.sensitivity_at_90_specificity[0]]).all()
    nothing = diagnosis.metrics(np.array([0, 1]), binary([0.2, 0.9]), np.zeros((2, 1)))
    assert np.isnan([values[0] for values in nothing]).all()


samples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=25)


@given(samples)
@settings(max_examples=150, deadline=None)
def test_a_weight_is_a_repetition(drawn_samples: list[tuple[int, int, int]]) -> None:
    labels, levels, weights = (np.array(column) for column in zip(*drawn_samples, strict=True))
    scores = binary(levels / 6)
    weighted = diagnosis.metrics(labels, scores, weights[:, None].astype(float))
    repeated = np.repeat(np.arange(len(labels)), weights)
    plain = diagnosis.metrics(labels[repeated], scores[repeated], ones(len(repeated)))
    for one, other in zip(weighted, plain, strict=True):
        assert one[0] == other[0] or (np.isnan(one[0]) and np.isnan(other[0]))


@given(samples, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_order_of_samples_changes_no_bit(drawn_samples: list[tuple[int, int, int]], random: object) -> None:
    shuffled = list(drawn_samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    results = []
    for chosen in (drawn_samples, shuffled):
        labels, levels, weights = (np.array(column) for column in zip(*chosen, strict=True))
        results.append(np.array(diagnosis.metrics(labels, binary(levels / 6), weights[:, None].astype(float))))
    np.testing.assert_array_equal(*results)


@given(samples)
@settings(max_examples=150, deadline=None)
def test_turned_scores_give_the_complement_and_monotone_scores_the_same(drawn_samples: list[tuple[int, int, int]]) -> None:
    labels, levels, weights = (np.array(column) for column in zip(*drawn_samples, strict=True))
    columns = weights[:, None].astype(float)
    auroc = diagnosis.auroc(labels, binary(levels / 6), columns)[0]
    if np.isnan(auroc):
        return
    assert diagnosis.auroc(labels, binary(1 - levels / 6), columns)[0] == pytest.approx(1 - auroc, abs=1e-12)
    assert diagnosis.auroc(1 - labels, binary(levels / 6), columns)[0] == pytest.approx(1 - auroc, abs=1e-12)
    assert diagnosis.auroc(labels, binary((levels / 6) ** 3), columns)[0] == auroc


def test_constant_scores_are_chance() -> None:
    assert diagnosis.metrics(np.array([0, 1, 1]), binary([0.4] * 3), ones(3)).auroc[0] == 0.5


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_that_round_to_1_keep_the_order_of_their_logits(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, 400)
    logits = rng.normal(0, 3, (400, n_classes)).astype(np.float32)
    logits[:, 1] += rng.uniform(20, 650, 400).astype(np.float32) + 60 * (labels == 1)
    scores = np.exp(log_softmax(logits))
    assert (scores[:, 1] == 1).sum() > 350
    odds = np.stack([logits[:, c] - np.logaddexp.reduce(np.delete(logits.astype(float), c, 1), axis=1) for c in range(n_classes)], axis=1)
    found = diagnosis.metrics(labels, scores, np.ones((400, 1)))
    classes = diagnosis.positive_classes(n_classes)
    expected = [np.mean([one(labels == c, odds[:, c]) for c in classes]) for one in (sk.roc_auc_score, sk.average_precision_score)]
    assert [found.auroc[0], found.auprc[0]] == pytest.approx(expected, abs=1e-12)
    assert diagnosis.auroc(labels, scores, np.ones((400, 1)))[0] == found.auroc[0]
    tied = [np.mean([sk.roc_auc_score(labels == c, scores[:, c]) for c in classes])]
    assert expected[0] > tied[0] + 0.01


NUMBERS = st.sampled_from([0.0, 1e-9, 0.5, 1 - 1e-9, 1.0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=20))
def test_ranks_never_contradict_scores(rows: list[tuple[float, float]]) -> None:
    scores = np.array(rows)
    score, ranks = scores[:, 1], diagnosis._ranking(scores, 1)
    assert (np.sign(np.subtract.outer(ranks, ranks)) * np.sign(np.subtract.outer(score, score)) >= 0).all()
    assert (np.subtract.outer(ranks, ranks)[np.subtract.outer(score, score) != 0] != 0).all()
    assert len(set(ranks[score <= 0.5])) == len(set(score[score <= 0.5]))
    halves = np.minimum(scores, 0.5)
    assert diagnosis._ranking(halves, 1).tolist() == halves[:, 1].tolist()
