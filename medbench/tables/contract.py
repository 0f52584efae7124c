"""What a table must hold, in polars' own types: columns and their types, nulls, keys and bounds. The contracts stand in `tables`."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import polars as pl


class Column(NamedTuple):
    """One column of a contract. Bounds are inclusive."""

    dtype: Any  # polars' type
    null: bool = False  # may be null
    key: bool = False  # part of the primary key: no two rows are equal in all of its columns
    low: float | None = None
    high: float | None = None
    min_length: int | None = None  # of a text [bytes]
    finite: bool = True  # floats are neither NaN nor infinite, in lists too
    null_items: bool = False  # numbers in lists may be null


class Table:
    """Base of all contracts: a subclass has a `Column` for each column, in order. `is_private`: its files are for their owner alone."""

    is_private = False

    @classmethod
    def columns(cls) -> dict[str, Column]:
        """Name -> column, in order."""
        return {name: column for kind in reversed(cls.__mro__) for name, column in vars(kind).items() if isinstance(column, Column)}

    @classmethod
    def primary_key(cls) -> list[str]:
        """Names of the columns of the key."""
        return [name for name, column in cls.columns().items() if column.key]

    @classmethod
    @cache
    def rules(cls) -> list[tuple[str, pl.Expr]]:
        """What is wrong where a rule does not hold, and whether it holds, row by row."""
        rules = [(f"{name} {rule}", holds) for name, one in cls.columns().items() for rule, holds in _rules(one, one.dtype, pl.col(name))]
        if keys := cls.primary_key():
            rules.append((f"{', '.join(keys)} (the primary key) is duplicated", pl.struct(keys).is_unique()))
        return rules


class Breach(ValueError):
    """A table breaks its contract; the message names columns and rows."""


def check(table: type[Table], frame: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns of `frame`, in the contract's order. Raises Breach with all that is wrong."""
    columns = table.columns()
    if absent := [name for name in columns if name not in frame.columns]:
        raise Breach(f"it lacks {', '.join(absent)}")
    kept = frame[list(columns)]
    types = zip(columns, kept.dtypes, (column.dtype for column in columns.values()), strict=True)
    if wrong := [f"{name} is {found}, not {expected}" for name, found, expected in types if found != expected]:
        raise Breach("; ".join(wrong))
    if kept.is_empty():
        return kept
    rules = table.rules()
    held = kept.select(holds.all().alias(str(place)) for place, (_, holds) in enumerate(rules)).row(0)  # where a value is null, all hold
    if broken := [_found(kept, rule, holds) for (rule, holds), good in zip(rules, held, strict=True) if not good]:
        raise Breach("; ".join(dict.fromkeys(broken)))
    return kept


def _rules(column: Column, dtype: Any, values: pl.Expr, inside: bool = False) -> Iterator[tuple[str, pl.Expr]]:
    """What is wrong where it does not hold, and whether it holds for every value."""
    is_list = isinstance(dtype, pl.List)
    may_be_null = column.null_items and not is_list if inside else column.null
    if not may_be_null:
        yield "is null", values.is_not_null()
    if is_list:
        for rule, holds in _rules(column, dtype.inner, pl.element(), inside=True):
            yield rule if inside else f"{rule} in its lists", values.list.eval(holds).list.all()
        return
    if dtype.is_float() and column.finite:
        yield "is not finite", values.is_finite()
    if column.low is not None:
        yield f"is less than {column.low}", values >= column.low
    if column.high is not None:
        yield f"is more than {column.high}", values <= column.high
    if column.min_length is not None:
        yield f"is shorter than {column.min_length}", values.str.len_bytes() >= column.min_length


def _found(frame: pl.DataFrame, rule: str, holds: pl.Expr) -> str:
    broken = frame.select(~holds.fill_null(True)).to_series().arg_true()
    return f"{rule} in {len(broken)} of {frame.height} rows, row {broken[0]} first"
