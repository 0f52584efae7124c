"""Bootstrap over groups: which groups resample b draws depends on the configuration's seed, the data set and the group count alone.

So resample b is the same in every cell of a data set, and every difference of two cells is paired.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**14  # draws made at a time: what stays in the cache
BLOCK = 1000  # resamples drawn at a time; block k has a random stream of its own, so no block waits for another


class Groups:
    """Groups of a test set, sorted by id. `index` [n]: the group of every sample; `unit`: `group` where ids repeat, else `sample`."""

    def __init__(self, group_ids: list[str]) -> None:
        self.names = sorted(set(group_ids))
        position = {name: number for number, name in enumerate(self.names)}
        self.index = np.array([position[name] for name in group_ids], dtype=np.int64)
        self.unit = "group" if len(self.names) < len(group_ids) else "sample"

    def __len__(self) -> int:
        return len(self.names)

    def count(self, used: NDArray[np.bool_]) -> int:
        """Groups that the samples `used` [n] are of."""
        return len(self.present(used))

    def present(self, used: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Their numbers, ascending."""
        return np.flatnonzero(np.bincount(self.index[used]))

    def effective(self, used: NDArray[np.bool_]) -> float:
        """Effective groups of the samples `used` [n]: (sum of sizes)^2 / sum of squared sizes; 0 where there is none."""
        sizes = np.bincount(self.index[used])
        return float(sizes.sum() ** 2 / max((sizes**2).sum(), 1))


class Resamples:
    """How often each of `n_groups` groups is drawn in each resample, in blocks of `BLOCK` resamples.

    Draws are scaled from raw PCG64 words (Lemire without rejection, bias below n_groups / 2^32): unlike the methods of
    numpy's Generator, raw words are promised to stay the same in later versions.
    """

    def __init__(self, seed: int, dataset: str, n_groups: int) -> None:
        self.source = seed, dataset
        self.entropy = (seed, int.from_bytes(hashlib.sha256(dataset.encode()).digest()[:8], "big"))
        self.n_groups = n_groups
        self._blocks: dict[int, NDArray[np.uint8]] = {}

    def of(self, n_groups: int) -> "Resamples":
        """Of another number of groups, by the same seed and data set."""
        return self if n_groups == self.n_groups else Resamples(*self.source, n_groups)

    def block(self, number: int) -> NDArray[np.uint8]:
        """Counts [BLOCK, n_groups] of one block; every row sums to `n_groups`. Kept, since a data set has many cells.

        It lies in memory group by group, as `weights` hands it on.
        """
        if number not in self._blocks:
            self._blocks[number] = self._draw(number)
        return self._blocks[number]

    def picks(self, key: str, n: int, numbers: range) -> NDArray[np.int64]:
        """Which of the `n` ratings of a thing, n - 1 times with replacement, each of the resamples `numbers` of one block draws [n - 1, b].

        It follows from seed, data set, `key` and resample alone: a thing that stands in two cells is drawn alike in both.
        """
        number = numbers.start // BLOCK
        entropy = (*self.entropy, int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
        generator = np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(number,)))
        words = generator.random_raw(BLOCK * (n - 1)).reshape(BLOCK, n - 1)
        drawn: NDArray[np.uint64] = ((words >> _HALF) * np.uint64(n)) >> _HALF
        return drawn[numbers.start - number * BLOCK : numbers.stop - number * BLOCK].T.astype(np.int64)

    def weights(self, n_resamples: int, at_once: int = BLOCK) -> Iterator[NDArray[np.float64]]:
        """The first `n_resamples` as weights [n_groups, b], rows contiguous: b is `at_once`, less at the end of a block."""
        for number in range(-(-n_resamples // BLOCK)):
            counts = self.block(number)[: n_resamples - number * BLOCK]
            for start in range(0, len(counts), at_once):
                yield counts[start : start + at_once].T.astype(np.float64, order="C")

    def _draw(self, number: int) -> NDArray[np.uint8]:
        generator = np.random.PCG64(np.random.SeedSequence(self.entropy, spawn_key=(number,)))
        size, n_words = np.uint64(self.n_groups), -(-self.n_groups // 2)
        # uint8: a group is drawn about once; 256 times has a probability below 1e-500
        counts = np.empty((BLOCK, self.n_groups), dtype=np.uint8)
        at_once = max(1, CHUNK // self.n_groups)
        for start in range(0, BLOCK, at_once):
            rows = counts[start : start + at_once]
            words = generator.random_raw(len(rows) * n_words).reshape(len(rows), n_words)
            halves = np.hstack([words >> _HALF, words & _LOW])[:, : self.n_groups]
            drawn = ((halves * size) >> _HALF).view(np.int64) + np.arange(len(rows))[:, None] * self.n_groups
            rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
        return np.asfortranarray(counts)


_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
