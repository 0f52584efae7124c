"""Columns of lists, made of flat ones: polars makes a series of every list that it is handed, which takes 5 kB a row."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import polars as pl


def column(values: Sequence[Any], dtype: Any, strict: bool = True) -> pl.Series:
    """Of values or None, as polars has it; of lists, however deep, without a series of each. Not `strict`: values are cast."""
    if not isinstance(dtype, pl.List):
        return pl.Series(values, dtype=dtype, strict=strict)
    import pyarrow as pa  # not for tables without such columns

    items = column(list(chain.from_iterable(one for one in values if one is not None)), dtype.inner, strict)
    ends = np.cumsum([0, *(0 if one is None else len(one) for one in values)], dtype=np.int64)
    begins = pa.Array.from_buffers(pa.int64(), len(ends), [None, pa.py_buffer(ends)])
    nulls = pl.Series([one is None for one in values], dtype=pl.Boolean)
    mask = nulls.to_arrow() if nulls.any() else None
    return pl.Series(pa.LargeListArray.from_arrays(begins, items.to_arrow(), mask=mask)).cast(dtype)
