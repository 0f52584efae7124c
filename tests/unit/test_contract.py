"""Table contracts: what breaks one is refused and named, everything else passes unchanged."""

from typing import Any

import polars as pl
import pytest

from medbench import tables
from medbench.tables import contract, lists
from medbench.tables.contract import Breach, Column


class Sample(contract.Table):
    """A column of each kind."""

    split = Column(pl.Enum(["train", "test"]), key=True)
    name = Column(pl.String, key=True, min_length=1)
    share = Column(pl.Float64, null=True, low=0, high=1)
    vectors = Column(pl.List(pl.List(pl.Float32)), null=True)
    draws = Column(pl.List(pl.Float64), finite=False, null_items=True)


GOOD: dict[str, Any] = {
    "split": ["train", "test"],
    "name": ["a", "a"],
    "share": [0.5, None],
    "vectors": [[[1.0], []], None],
    "draws": [[], [1.0, None]],
}


def frame(**changed: Any) -> pl.DataFrame:
    return pl.DataFrame({**GOOD, **changed}, schema={name: column.dtype for name, column in Sample.columns().items()})


def test_a_good_table_passes_in_the_contracts_order_without_other_columns() -> None:
    given = frame().with_columns(more=pl.lit(1)).select("more", "draws", "vectors", "share", "name", "split")
    assert contract.check(Sample, given).equals(frame())
    assert contract.check(Sample, frame().clear()).equals(frame().clear())


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"split": ["train", "train"]}, "split, name (the primary key) is duplicated in 2 of 2 rows, row 0 first"),
        ({"name": ["a", None]}, "name is null in 1 of 2 rows, row 1 first"),
        ({"name": ["", "a"]}, "name is shorter than 1 in 1 of 2 rows"),
        ({"share": [None, -0.1]}, "share is less than 0 in 1 of 2 rows, row 1 first"),
        ({"share": [1.1, 2.0]}, "share is more than 1 in 2 of 2 rows"),
        ({"share": [0.5, float("nan")]}, "share is not finite in 1 of 2 rows"),
        ({"vectors": [[[1.0, None]], None]}, "vectors is null in its lists in 1 of 2 rows"),
        ({"vectors": [[None], None]}, "vectors is null in its lists in 1 of 2 rows"),
        ({"vectors": [[[float("inf")]], None]}, "vectors is not finite in its lists in 1 of 2 rows"),
        ({"draws": [None, []]}, "draws is null in 1 of 2 rows"),
    ],
)
def test_a_value_that_breaks_the_contract_is_named(changed: dict[str, Any], found: str) -> None:
    with pytest.raises(Breach) as error:
        contract.check(Sample, frame(**changed))
    assert found in str(error.value)


def test_lists_that_may_hold_anything_do() -> None:
    assert contract.check(Sample, frame(draws=[[float("nan"), None], [float("inf")]])).height == 2


def test_absent_columns_and_other_types_are_refused() -> None:
    with pytest.raises(Breach, match=r"^it lacks share, draws$"):
        contract.check(Sample, frame().drop("share", "draws"))
    with pytest.raises(Breach, match=r"^share is Float32, not Float64$"):
        contract.check(Sample, frame().with_columns(pl.col("share").cast(pl.Float32)))
    with pytest.raises(Breach, match="split is Enum"):
        contract.check(Sample, frame().with_columns(pl.col("split").cast(pl.Enum(["train", "test", "val"]))))


def test_every_table_has_columns_and_a_key() -> None:
    for table in tables.TABLES.values():
        assert table.columns() and table.primary_key()
        assert not any(column.null for column in table.columns().values() if column.key)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([["a"], [], None, ["b", "c"]], pl.List(pl.String)),
        ([[[0.5, 1.0], [2.0]], None, [], [[]]], pl.List(pl.List(pl.Float64))),
        ([[1, 2], (3,)], pl.List(pl.Int32)),
        ([["x"]], pl.List(pl.Enum(["x", "y"]))),
        ([], pl.List(pl.String)),
        ([None, None], pl.List(pl.Boolean)),
        (["a", None], pl.String),
    ],
)
def test_columns_of_lists_are_those_that_polars_makes(values: list[Any], dtype: Any) -> None:
    made = lists.column(values, dtype)
    assert made.dtype == dtype and made.equals(pl.Series(values, dtype=dtype), null_equal=True)
    with pytest.raises(TypeError):
        lists.column([["a"]], pl.List(pl.Int32))
