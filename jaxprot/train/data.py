"""Which examples form the batch of a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxprot.core.buckets import bucket_length


class BucketBatches:
    """Batches of examples of like length, a pure function of (step, seed).

    Every epoch shuffles the examples, groups them by length bucket and cuts each group into batches of about
    `items` padded items; the order of the batches is shuffled too. A bucket's last batch is filled up from the same
    bucket, so that each bucket has one shape.

    Args:
      lengths: items (residues) of each example.
      items: padded items per batch.
    """

    def __init__(self, lengths: Sequence[int], items: int):
        self.buckets = np.array([bucket_length(int(n)) for n in lengths])
        self.items = items
        self.sizes = {int(b): max(1, round(items / int(b))) for b in np.unique(self.buckets)}
        self.per_epoch = sum(-(-int((self.buckets == b).sum()) // n) for b, n in self.sizes.items())
        self._cached: tuple[tuple[int, int], list[tuple[int, np.ndarray]]] | None = None

    def _epoch(self, epoch: int, seed: int) -> list[tuple[int, np.ndarray]]:
        if self._cached is not None and self._cached[0] == (epoch, seed):
            return self._cached[1]
        rng = np.random.default_rng([seed, epoch])
        batches = []
        for bucket, size in self.sizes.items():
            members = rng.permutation(np.flatnonzero(self.buckets == bucket))
            count = -(-len(members) // size)
            members = np.resize(members, count * size)
            batches += [(bucket, part) for part in members.reshape(count, size)]
        order = rng.permutation(len(batches))
        self._cached = ((epoch, seed), [batches[i] for i in order])
        return self._cached[1]

    def __call__(self, step: int, seed: int) -> tuple[int, np.ndarray]:
        """(padded length, indices of the examples) of a step."""
        epoch, within = divmod(step, self.per_epoch)
        return self._epoch(epoch, seed)[within]
