"""Intervals, paired tests, verdicts and pooling, by hand and against scipy."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks import coverage
from medbench.stats import student
from medbench.stats.intervals import at_shares, bca, logit, one_sided_p, percentile, quantile, standard_deviation
from medbench.stats.paired import Ahead, SetTest, holm, is_near, minimum_detectable_difference, p_above, paired_gap, set_test, verdict
from medbench.stats.pooling import hartung_knapp

NAN = float("nan")


def test_percentile_drops_and_counts_undefined_replicates() -> None:
    drawn = np.array([*np.linspace(0, 1, 101), NAN, NAN])
    made = percentile(drawn, 0.9)
    assert (made.low, made.high, made.n_undefined, made.reason) == (pytest.approx(0.05), pytest.approx(0.95), 2, None)
    assert made.sd == pytest.approx(np.nanstd(drawn, ddof=1))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_numpys_bit_by_bit(values: list[float], share: float) -> None:
    assert at_shares(np.array(values), share, 0.0, 1.0) == np.quantile(values, [share, 0.0, 1.0]).tolist()


def test_an_interval_mostly_undefined_is_null_with_its_reason() -> None:
    made = percentile(np.array([0.1, 0.2, NAN, NAN, NAN]), 0.95)
    assert made == (None, None, None, 3, "undefined in 3 of 5 resamples")
    assert logit(0.5, np.full(4, NAN), 0.95, 30.0).reason == "undefined in 4 of 4 resamples"


def test_logit_interval_by_hand() -> None:
    drawn = np.array([0.88, 0.92, 0.9, 0.86, 0.94])
    sd = np.std(drawn, ddof=1)
    made = logit(0.9, drawn, 0.95, 30.0)
    reach = stats.t.ppf(0.975, 29) * math.sqrt(30 / 29) * sd / 0.09
    assert made.low == pytest.approx(1 / (1 + math.exp(-(math.log(9) - reach))))
    assert made.high == pytest.approx(1 / (1 + math.exp(-(math.log(9) + reach))))


@given(st.floats(1e-4, 0.5), st.floats(10, 1e4))
def test_p_is_the_inverse_of_the_quantile(tail: float, effective_groups: float) -> None:
    share = stats.norm.sf(quantile(tail, effective_groups))
    assert one_sided_p(share, effective_groups) == pytest.approx(tail, rel=1e-6, abs=1e-7)  # both are rounded to 8 digits
    assert share <= tail + 1e-7 and one_sided_p(share, None) == share


def test_without_effective_groups_the_quantile_is_the_normal_one() -> None:
    assert quantile(0.025, None) == pytest.approx(stats.norm.isf(0.025))
    assert quantile(0.025, 1.0) == quantile(0.025, 2.0)  # no degree of freedom: such an interval is never shown
    assert one_sided_p(1.0, 20.0) == 1.0


def test_a_gap_of_few_groups_is_tested_as_by_t() -> None:
    """A mean of 12 values: interval and p of the bootstrap are Student's; the normal ones are 15% too narrow."""
    values = np.random.default_rng(5).normal(0.55, 1, 12)
    drawn = np.random.default_rng(0).choice(values, (200_000, 12)).mean(axis=1)
    made, theirs = paired_gap(drawn, 0.95, 12.0), stats.ttest_1samp(values, 0)
    assert made.p == pytest.approx(theirs.pvalue, abs=0.01) and made.low is not None and made.high is not None
    interval = theirs.confidence_interval(0.95)
    assert made.high - made.low == pytest.approx(interval.high - interval.low, rel=0.03)
    plain = paired_gap(drawn, 0.95)
    assert plain.high is not None and plain.low is not None and plain.high - plain.low < 0.88 * (interval.high - interval.low)
    assert plain.p is not None and made.p > plain.p
    assert made.detectable > plain.detectable  # type: ignore[operator]


@given(st.floats(0.001, 0.999), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_logit_interval_stays_inside_and_around_the_estimate(estimate: float, drawn: list[float]) -> None:
    made = logit(estimate, np.array(drawn), 0.95, 30.0)
    assert made.low is not None and made.high is not None
    assert 0 <= made.low <= estimate + 1e-9 and estimate - 1e-9 <= made.high <= 1


def test_on_a_bound_the_other_limit_is_exact() -> None:
    """AUROC 1.000 [1.000, 1.000] is no certainty: of 40 effective groups, Clopper and Pearson's limit for 40 of 40."""
    made = logit(1.0, np.ones(100), 0.95, 40.0)
    assert made.low == pytest.approx(stats.beta.ppf(0.025, 40, 1)) and made.high == 1
    made = logit(0.0, np.zeros(100), 0.95, 40.0)
    assert made.low == 0 and made.high == pytest.approx(stats.beta.ppf(0.975, 1, 40))
    assert "outside" in str(logit(1.2, np.ones(10), 0.95, 40.0).reason)


def test_bca_agrees_with_scipy() -> None:
    """scipy's BCa of a mean, on scipy's own replicates."""
    data = np.random.default_rng(0).exponential(size=40)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(1))
    jackknife = np.array([np.delete(data, i).mean() for i in range(40)])
    made = bca(float(data.mean()), theirs.bootstrap_distribution, 0.95, lambda: jackknife)
    assert made.low == pytest.approx(theirs.confidence_interval.low, abs=1e-6)
    assert made.high == pytest.approx(theirs.confidence_interval.high, abs=1e-6)


def test_bca_of_replicates_on_one_side_is_null() -> None:
    assert "one side" in str(bca(0.0, np.array([0.5, 0.6]), 0.95, lambda: np.array([0.1, 0.2])).reason)


def test_p_values_by_hand() -> None:
    assert p_above(np.array([1.0, 2.0, 3.0])) == 1 / 4
    assert p_above(np.array([1.0, 0.0, -1.0])) == 3 / 4  # 0 counts against
    assert p_above(np.array([1.0, NAN, 2.0])) == 1 / 3  # over the defined ones
    made = paired_gap(np.array([0.1, 0.2, 0.3, -0.1]), 0.95)
    assert made.p == 2 * 2 / 5


def test_a_gap_without_variance_is_no_certainty() -> None:
    """Two models with equal answers, or both at 1.000: there was `equivalent`, with an interval of no width."""
    for differences in (np.zeros(100), np.full(100, 0.1), np.array([0.1, NAN, 0.1])):
        made = paired_gap(differences, 0.95)
        assert made[:-1] == (None,) * 5 and "the same gap, which is no certainty" in str(made.reason)


@pytest.mark.parametrize("n_below", [245, 255])
def test_interval_and_p_are_of_the_same_resamples_and_agree(n_below: int) -> None:
    differences = np.concatenate([np.full(9_000, 0.5), np.linspace(0.1, 0.2, 1000 - n_below), np.full(n_below, -0.1)])
    made = paired_gap(differences, 0.95)
    assert made.low is not None and made.p is not None
    assert (made.low > 0) == (made.p <= 0.05) == (n_below < 250)


def test_an_undefined_gap_is_null() -> None:
    made = paired_gap(np.full(10, NAN), 0.95)
    assert made.p is None and made.sd is None and made.reason == "undefined in 10 of 10 resamples"


def test_minimum_detectable_difference_has_80_percent_power() -> None:
    gap = minimum_detectable_difference(1.0, 0.95)
    assert stats.norm.sf(stats.norm.ppf(0.975) - gap) == pytest.approx(0.8)


@pytest.mark.parametrize(("generalists", "specialists", "simulated"), [(1, 1, 3.48), (1, 4, 4.09), (2, 4, 4.32)])
def test_the_minimum_detectable_difference_is_the_verdicts(generalists: int, specialists: int, simulated: float) -> None:
    """In sd, with Holm over 6 rows; `simulated` with candidates that share half of their variance, of which ours is an upper bound."""
    made = minimum_detectable_difference(1.0, 0.95, generalists, specialists, 6)
    assert simulated - 0.005 < made < 1.04 * simulated


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == [0.06, 0.03, 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(ranked))


def test_set_test_by_hand() -> None:
    """9 resamples: g1 beats s1 always and s2 in 8 of 9; g2 loses to both always."""
    always, mostly = np.ones(9), np.array([1.0] * 8 + [-1.0])
    made = set_test({("g1", "s1"): always, ("g1", "s2"): mostly, ("g2", "s1"): -always, ("g2", "s2"): -always}, 2.0)
    assert made.generalist == (pytest.approx(0.2), 2, None) and made.generalist.p == pytest.approx(0.4)  # |G| times the harder of g1's two
    assert made.specialist.p == 1.0  # s2 beats g1 in 1 of 9: |S| 9 / 10, at most 1
    assert made.p == pytest.approx(0.8)
    assert made.equivalent == (pytest.approx(0.1), 2, None)  # all 9 lie within 2


def test_set_test_of_a_single_pair_is_the_paired_test() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, 999)
    for effective_groups in (None, 40.0):
        assert set_test({("g", "s"): differences}, 0.1, effective_groups).p == paired_gap(differences, 0.95, effective_groups).p


@pytest.mark.parametrize("candidates", [1, 4])
def test_equivalence_of_sets_errs_in_5_percent(candidates: int) -> None:
    """All specialists are worse by exactly the margin; the one that chance favours looks nearer, which had 14.5% of errors with four."""
    generator, wrong, n_draws = np.random.default_rng(0), 0, 600
    for _ in range(n_draws):
        estimates = 0.02 + generator.normal(0, 0.004, candidates)
        drawn = {("g", s): estimate + generator.normal(0, 0.004, 400) for s, estimate in enumerate(map(float, estimates))}
        wrong += set_test(drawn, 0.02).equivalent.p <= 0.05  # type: ignore[type-var]
    assert wrong / n_draws < 0.05 + 2 * math.sqrt(0.05 * 0.95 / n_draws)


def sets(generalist: float, specialist: float, equivalent: float = 1.0) -> SetTest:
    return SetTest(Ahead(generalist, 1), Ahead(specialist, 1), Ahead(equivalent, 1), 10_000)


@pytest.mark.parametrize(
    ("test", "adjusted", "equivalent", "expected"),
    [
        (sets(0.001, 1.0), 0.01, 1.0, "generalist"),
        (sets(1.0, 0.001), 0.01, 1.0, "specialist"),
        (sets(0.001, 1.0, 0.001), 0.01, 0.01, "generalist"),  # ahead, within the margin
        (sets(0.03, 1.0), 0.06, 1.0, "undecided"),
        (sets(0.5, 0.5, 0.001), 1.0, 0.01, "equivalent"),
        (sets(0.5, 0.5, 0.03), 1.0, 0.06, "undecided"),
        (sets(0.0249, 1.0), 0.0498, 1.0, None),  # over 12 seeds of the resamples such a p ran from 0.042 to 0.052
        (sets(0.0252, 1.0), 0.0504, 1.0, None),
        (sets(0.5, 0.5, 0.0498), 1.0, 0.0498, None),
    ],
)
def test_verdicts(test: SetTest, adjusted: float, equivalent: float, expected: str | None) -> None:
    assert verdict(test, adjusted, equivalent, 0.95) == expected


def test_two_monte_carlo_standard_errors_by_hand() -> None:
    """Of a share of 0.025 in 10,000 resamples 0.00156, twice that for a two-sided p: near is within about 0.006 of 0.05."""
    assert is_near(0.0445, Ahead(0.02225, 1), 10_000, 0.05) and not is_near(0.0435, Ahead(0.02175, 1), 10_000, 0.05)
    assert not is_near(0.0445, Ahead(0.02225, 1), 40_000, 0.05)


def test_monte_carlo_errors_are_those_of_the_share_behind_an_expanded_p() -> None:
    """With 20 groups a share of 0.016 stands for a p of 0.025: two errors of the share, 0.0025, are 0.003 of that p."""
    share = stats.norm.sf(quantile(0.0224, 20.0))
    assert is_near(0.0448, Ahead(share, 1, 20.0), 10_000, 0.05)
    share = stats.norm.sf(quantile(0.0215, 20.0))
    assert not is_near(0.043, Ahead(share, 1, 20.0), 10_000, 0.05)


def test_pooling_needs_three_data_sets_and_variance() -> None:
    assert hartung_knapp([0.1, 0.2], [0.1, 0.1], 0.95).reason == "k = 2: pooled from 3 data sets up"
    assert hartung_knapp([0.1, 0.2, 0.3], [0.1, 0.1, 0.0], 0.95).mean is None


def test_pooling_by_hand() -> None:
    """Equal variances 0.01: DerSimonian-Laird tau2 = sample variance - 0.01, and the scale is 1 by construction."""
    effects = [0.0, 0.3, 0.6]
    made = hartung_knapp(effects, [0.1] * 3, 0.95)
    assert made.k == 3
    assert made.mean == pytest.approx(0.3)
    assert made.tau2 == pytest.approx(np.var(effects, ddof=1) - 0.01)
    reach = stats.t.ppf(0.975, 2) * np.std(effects, ddof=1) / math.sqrt(3)
    assert made.high == pytest.approx(0.3 + reach)
    assert made.low == pytest.approx(0.3 - reach)


def test_pooling_of_equal_effects_is_no_narrower_than_their_own_uncertainty() -> None:
    made = hartung_knapp([0.2, 0.2, 0.2], [0.1] * 3, 0.95)
    assert made.tau2 == 0
    assert made.high == pytest.approx(0.2 + stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3))


def test_standard_deviation_is_exact() -> None:
    values = np.array([1e8, 1e8 + 1, 1e8 + 2])
    assert standard_deviation(values) == 1.0


def test_the_benchmark_of_coverage_draws_and_judges() -> None:
    """A handful of draws: intervals are shown and hold, far apart is ahead by both rules, and far apart by the margin is not equivalent."""
    design = coverage.Design(0.4, True, 30, 33)
    found = coverage.covered(design, 0, 3)
    assert found["AUROC 0.8, shown"] == found["gap 0.97 - 0.95, shown"] == 3 and found["AUROC 0.8, held"] > 0
    assert coverage.covered(coverage.Design(0.4, False, 7, 9), 0, 2)["AUROC 0.8, shown"] == 0  # fewer than 10: nothing is shown
    ahead = coverage.judged(coverage.Case(design, coverage.Row((0.97,), (0.6, coverage.FAR)), 0.02, 2, 1), 0, 2)
    assert ahead["generalist"] == ahead["old generalist"] == ahead["rows"] == ahead["side in a table"] == 2
    equal = coverage.judged(coverage.Case(design, coverage.Row((0.8,), (0.8,)), 0.5, 2, 2), 0, 1)
    assert equal["equivalent"] == equal["old equivalent"] == equal["rows"] == 2 and equal["side in a table"] == 0
    assert coverage.bound(0, 2000) == pytest.approx(1 - 0.05 ** (1 / 2000))


def test_students_t_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (0.7, 1, 2.5, 9, 29.3, 200, 5000, 1e6):
        for t in (-40.0, -4.2, -1.96, -0.3, 0.0, 0.5, 2.0, 7.0):
            assert student.cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=2e-8)
        for p in (1e-6, 0.0004, 0.025, 0.3, 0.5, 0.9, 0.975, 0.9999):
            assert student.quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-7, abs=1e-7)
