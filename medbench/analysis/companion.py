"""The companion study (arXiv 2507.11200): its 210 published accuracies against each other. No run is needed.

Its tables give a model's accuracy on all questions of a benchmark, on those called reasoning and on those called understanding. Counts of
questions are not printed; they are recovered from the four decimals, since an accuracy of n questions is k / n.
"""

from math import sqrt
from typing import NamedTuple

import polars as pl

from medbench.analysis.paper import NORMAL, PERCENT, markdown, rows_of

DIGITS = 4  # of the published fractions
ROUNDING = 1e-4  # by which a mean and its parts may differ through rounding


class Sizes(NamedTuple):
    """Questions of a benchmark, recovered from the figures; None where nothing fits better than by chance, or too many numbers do."""

    all: int | None = None
    reasoning: int | None = None

    @property
    def understanding(self) -> int | None:
        """The rest."""
        return self.all - self.reasoning if self.all and self.reasoning else None


SIZES = {
    "MedXpert": Sizes(2000, 1446),
    "OmniMedVQA": Sizes(),
    "PMC-VQA": Sizes(2000),
    "PathVQA": Sizes(3362),
    "MMMU": Sizes(145, 111),
    "SLAKE": Sizes(412, 357),
    "VQA-RAD": Sizes(251, 206),
}
TELLING = ("MMMU", "SLAKE", "VQA-RAD")  # so small that a chance fit is rare
PARTS = ("all", "reasoning", "understanding")


def figures() -> pl.DataFrame:
    """The 70 rows: `model`, `role`, `benchmark`, and the three accuracies as fractions."""
    return pl.DataFrame(
        [{**row, **{part: round(float(row[part]) / PERCENT, DIGITS) for part in PARTS}} for row in rows_of("mcq_accuracy.csv")]
    )


def fits(value: float, n: int) -> bool:
    """Whether some k of n questions gives a published figure."""
    return round(round(value * n) / n, DIGITS) == value


def by_chance(n: int) -> float:
    """The share of all figures of four decimals that fit n questions."""
    return len({round(k / n, DIGITS) for k in range(n + 1)}) * ROUNDING


def contradictions() -> pl.DataFrame:
    """A row a benchmark, of ten models each: where reasoning exceeds understanding, where the whole lies outside its two parts, and where
    understanding, as it follows from the whole and the reasoning part, exceeds reasoning after all, and clearly so.
    """
    records = []
    for benchmark, size in SIZES.items():
        rows = figures().filter(pl.col("benchmark") == benchmark)
        high, low = pl.max_horizontal("reasoning", "understanding"), pl.min_horizontal("reasoning", "understanding")
        implied = [gap for row in rows.iter_rows(named=True) if (gap := _implied_gap(row["all"], row["reasoning"], size)) is not None]
        records.append(
            {
                "benchmark": benchmark,
                "reasoning > understanding": _count(rows.filter(pl.col("reasoning") > pl.col("understanding")).height, rows.height),
                "all above both": _count(rows.filter(pl.col("all") > high + ROUNDING).height, rows.height),
                "all below both": _count(rows.filter(pl.col("all") < low - ROUNDING).height, rows.height),
                "implied understanding > reasoning": _count(sum(gap > 0 for gap, _ in implied), len(implied)),
                "by more than 95% bounds": _count(sum(gap > reach for gap, reach in implied), len(implied)),
            }
        )
    return pl.DataFrame(records)


def denominators() -> pl.DataFrame:
    """A row a benchmark and part with a recovered number of questions n: of ten figures those that fit it, and would by chance."""
    records = []
    for benchmark, size in SIZES.items():
        rows = figures().filter(pl.col("benchmark") == benchmark)
        for part in PARTS:
            if n := getattr(size, part):
                fitting = _count(sum(fits(value, n) for value in rows[part]), rows.height)
                chance = f"{rows.height * by_chance(n):.1f}"
                records.append({"benchmark": benchmark, "part": part, "n": str(n), "fit": fitting, "by chance": chance})
    return pl.DataFrame(records)


def without_denominator() -> list[str]:
    """Models whose figures of all questions fit the recovered number on none of the small benchmarks."""
    rows = figures().filter(pl.col("benchmark").is_in(TELLING))
    fitting = {row["model"] for row in rows.iter_rows(named=True) if fits(row["all"], SIZES[row["benchmark"]].all or 0)}
    return [model for model in rows["model"].unique(maintain_order=True) if model not in fitting]


def _implied_gap(whole: float, reasoning: float, size: Sizes) -> tuple[float, float] | None:
    """Understanding minus reasoning, where understanding follows from the whole, and half its 95% width (different questions: unpaired)."""
    if not (size.all and size.reasoning and size.understanding):
        return None
    implied = (whole * size.all - reasoning * size.reasoning) / size.understanding
    variance = reasoning * (1 - reasoning) / size.reasoning + implied * (1 - implied) / size.understanding
    return implied - reasoning, NORMAL * sqrt(max(variance, 0.0))


def _count(n: int, of: int) -> str:
    return f"{n} of {of}" if of else ""


def says() -> str:
    """What contradicts what, in words with the numbers of the tables."""
    rows = figures()
    over = rows.filter(pl.col("reasoning") > pl.col("understanding")).height
    outside = rows.filter(
        (pl.col("all") > pl.max_horizontal("reasoning", "understanding") + ROUNDING)
        | (pl.col("all") < pl.min_horizontal("reasoning", "understanding") - ROUNDING)
    ).height
    lost = " and ".join(without_denominator())
    return (
        "The article says that reasoning is consistently lower than understanding; its own tables have it higher in "
        f"{over} of {rows.height} cells.\n"
        f"The accuracy of all questions lies outside its two parts in {outside} cells, on MedXpert above both in all ten: no split of the "
        "questions does that, so the tables cannot be of the same answers.\n"
        f"The figures of {lost} fit the number of questions on none of {', '.join(TELLING)}: answers were probably dropped, not "
        "counted wrong.\n"
        "Only MedXpert has labels of people; elsewhere the split is a classifier's guess without a published validity.\n"
        "The figures were transcribed from a secondary source, and table 3 (understanding) was not compared with the article itself: do "
        "that before the contradiction is published."
    )


def command() -> None:
    """Print what the companion study's figures say of each other."""
    print(f"\nThe companion study (arXiv 2507.11200): {figures().height * len(PARTS)} accuracies against each other\n\n{says()}")
    print(f"\nReasoning, understanding and the whole, in models of ten\n\n{markdown(contradictions())}")
    print(f"\nNumbers of questions that the four decimals fit\n\n{markdown(denominators())}")
