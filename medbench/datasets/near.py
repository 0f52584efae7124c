"""Near duplicates: the pairs of perceptual hashes of 64 bits that differ in few of them."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS = 64
CHUNK = 2**22  # pairs compared at once


class Pairs(NamedTuple):
    """Positions of close hashes: first[i] < second[i], each pair once, sorted."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]


def close_pairs(hashes: NDArray[np.uint64], threshold: int) -> Pairs:
    """All pairs of different hashes that differ in at most `threshold` bits. `hashes` [n], each once.

    Not quadratic: two such hashes agree in at least one of threshold + 1 blocks of bits, so only those that share a block are compared.
    """
    found = [np.empty(0, np.int64)]
    n = len(hashes)
    for low, high in _blocks(threshold):
        keys = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        for left, right in _within(keys[order]):
            a, b = order[left], order[right]
            near = np.bitwise_count(hashes[a] ^ hashes[b]) <= threshold
            a, b = a[near], b[near]
            found.append(np.minimum(a, b) * n + np.maximum(a, b))
    codes = np.unique(np.concatenate(found))
    return Pairs(codes // max(n, 1), codes % max(n, 1))


def _blocks(threshold: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, BITS, threshold + 2).round().astype(int).tolist()
    return list(pairwise(edges))


def _within(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of all pairs of equal keys, which are sorted; a bounded number at a time."""
    n = len(keys)
    for offset in range(1, n):
        equal = np.flatnonzero(keys[offset:] == keys[:-offset])
        if not len(equal):
            return
        for start in range(0, len(equal), CHUNK):
            left = equal[start : start + CHUNK]
            yield left, left + offset
