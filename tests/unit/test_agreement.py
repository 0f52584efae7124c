"""Agreement of ratings and prediction-powered means, against published examples and simulated truth."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medbench.stats.agreement import agreement, alpha, icc, kappa
from medbench.stats.prediction_powered import corrected_mean

NAN = np.nan
KRIPPENDORFF = np.array(  # "Computing Krippendorff's alpha-reliability" (2011), section C: four observers, twelve units
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)  # 1979


def test_alpha_of_the_published_example() -> None:
    assert alpha(KRIPPENDORFF) == pytest.approx(0.849, abs=5e-4)


def test_icc_of_the_published_example() -> None:
    assert icc(SHROUT_FLEISS) == pytest.approx(0.29, abs=5e-3)


def test_kappa_is_sklearn_s() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 5, 200)
    second = np.clip(first + random.integers(-1, 2, 200), 0, 4)
    assert kappa(first, second, 5) == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"))
    assert kappa(np.zeros(9, dtype=int), np.zeros(9, dtype=int), 5) is None


def test_agreement_of_pairs() -> None:
    found = agreement(np.array([[10, 10.0], [50, 61], [90, 100], [80, NAN], [NAN, NAN]]))
    assert found.n == 3 and found.mean_difference == pytest.approx(7) and found.share_over == pytest.approx(1 / 3)
    nobody = agreement(np.full((3, 2), NAN))
    assert nobody == (0, None, None, None, None)
    same = agreement(np.full((5, 2), 40.0))
    assert same.alpha is None and same.icc is None and same.mean_difference == 0


def test_corrected_mean_covers_the_truth_and_is_narrower_than_labels_alone() -> None:
    random = np.random.default_rng(1)
    covered, narrower, judged_alone = 0, 0, 0
    for _ in range(400):
        groups = np.repeat(np.arange(200), 3)
        truth = 60 + np.repeat(random.normal(0, 15, 200), 3) + random.normal(0, 10, 600)
        judged = truth + 12 + random.normal(0, 6, 600)  # a lenient judge
        labels = np.where(np.isin(groups, random.choice(200, 40, replace=False)), truth, NAN)
        found = corrected_mean(judged, labels, groups, 0.95)
        alone = corrected_mean(np.zeros(600), labels, groups, 0.95)
        assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
        covered += found.low <= 60 <= found.high
        narrower += found.high - found.low < alone.high - alone.low
        judged_alone += abs(judged.mean() - 60) < 6
    assert 0.92 <= covered / 400 <= 0.98
    assert narrower > 390 and judged_alone == 0


def test_groups_may_be_labelled_in_part() -> None:
    """Their labelled and their other answers err together."""
    random, groups, covered = np.random.default_rng(3), np.repeat(np.arange(165), [1] * 150 + [20] * 15), 0
    for _ in range(400):
        truth = 60 + random.normal(0, 15, 165)[groups] + random.normal(0, 10, 450)
        labels = np.where(np.isin(np.arange(450), random.choice(450, 100, replace=False)), truth, NAN)
        found = corrected_mean(truth + 8 + random.normal(0, 5, 450), labels, groups, 0.95)
        assert found.low is not None and found.high is not None
        covered += found.low <= 60 <= found.high
    assert 0.91 <= covered / 400 <= 0.98


def test_a_judge_that_tells_nothing_is_left_out() -> None:
    random = np.random.default_rng(2)
    labels = np.where(random.random(500) < 0.2, random.normal(50, 10, 500), NAN)
    found = corrected_mean(random.normal(90, 5, 500), labels, np.arange(500), 0.95)
    assert found.weight < 0.3 and found.estimate == pytest.approx(np.nanmean(labels), abs=1)


@pytest.mark.parametrize(
    ("labels", "reason"), [([NAN] * 20, "too few"), ([1.0] * 5 + [NAN] * 15, "fewer than 10"), ([1.0] * 20, "without variance")]
)
def test_too_few_labels_have_a_reason(labels: list[float], reason: str) -> None:
    found = corrected_mean(np.linspace(1, 100, 20), np.array(labels), np.arange(20), 0.95)
    assert found.low is None and found.reason is not None and reason in found.reason
