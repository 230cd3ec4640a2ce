"""Which examples form the batch of a step, and how batches reach the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import InputError
from jaxprot.train.parallel import Parallel

_LISTED = 1 << 22  # examples whose order is kept as an array


class Batch(NamedTuple):
    """Which examples form a batch.

    Attributes:
      shape: what `load` needs to give every batch of this shape arrays of one shape (a padded length, or None).
      members: indices of the examples.
      size: examples of a full batch of this shape, 0 for as many as `members`; a smaller one is padded with weight 0.
    """

    shape: Hashable
    members: np.ndarray
    size: int = 0


class BucketBatches:
    """Batches of examples of like length, a pure function of (step, seed).

    Every epoch shuffles the examples, groups them by length bucket and cuts each group into batches of about
    `items` padded items; the order of the batches is shuffled too. A bucket's last batch is filled up from the same
    bucket, so that each bucket has one shape.

    Args:
      lengths: items (residues) of each example.
      items: padded items per batch.
      bucket: padded length of a length.
      cost: items of a padded length, where they are others than the length itself (pairs of atoms).
      most: examples of a batch at most, so that short ones are not seen in a few large batches alone.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        items: int,
        bucket: Callable[[int], int] = bucket_length,
        cost: Callable[[int], int] = int,
        most: int | None = None,
    ):
        self.buckets = np.array([bucket(int(n)) for n in lengths])
        self.items = items
        sizes = {int(b): max(1, round(items / int(cost(b)))) for b in np.unique(self.buckets)}
        self.sizes = sizes if most is None else {bucket: min(size, most) for bucket, size in sizes.items()}
        self.per_epoch = sum(-(-int((self.buckets == b).sum()) // n) for b, n in self.sizes.items())
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int, seed: int) -> list[Batch]:
        rng = np.random.default_rng([seed, epoch])
        batches = []
        for bucket, size in self.sizes.items():
            members = rng.permutation(np.flatnonzero(self.buckets == bucket))
            count = -(-len(members) // size)
            members = np.resize(members, count * size)
            batches += [Batch(bucket, part) for part in members.reshape(count, size)]
        order = rng.permutation(len(batches))
        return [batches[i] for i in order]

    def __call__(self, step: int, seed: int) -> Batch:
        """The batch of a step; its shape is the padded length."""
        epoch, within = divmod(step, self.per_epoch)
        return self._epoch(epoch, seed)[within]


class ShuffledBatches:
    """Batches of `size` examples of one shape, a pure function of (step, seed).

    Each epoch is shuffled anew; of many millions of examples by grain's index shuffle, which holds no list of them.

    Args:
      count: examples.
      size: of a batch.
      last: what becomes of an epoch's last, smaller batch: `keep` (padded with weight 0) or `drop`.

    Raises:
      ValueError: no examples, or fewer than a batch where the last one is dropped.
    """

    def __init__(self, count: int, size: int, last: str = "keep"):
        if count < 1 or size < 1 or last not in ("keep", "drop") or (last == "drop" and count < size):
            raise ValueError(f"{count} examples cannot form batches of {size} (last: {last})")
        self.count, self.size = count, size
        self.per_epoch = count // size if last == "drop" else -(-count // size)
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int, seed: int) -> Any:
        if self.count <= _LISTED:  # a look-up takes no time; grain's costs 0.2 ms for each example
            return np.random.default_rng([seed, epoch]).permutation(self.count)
        mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
        return grain.MapDataset.range(self.count).shuffle(seed=mixed)

    def __call__(self, step: int, seed: int) -> Batch:
        """The batch of a step."""
        epoch, within = divmod(step, self.per_epoch)
        order = self._epoch(epoch, seed)
        stop = min(self.count, (within + 1) * self.size)
        places = range(within * self.size, stop)
        members = order[np.array(places)] if isinstance(order, np.ndarray) else np.array([order[i] for i in places])
        return Batch(None, members, self.size)


class Chunk(NamedTuple):
    """The batches of one dispatch, as this process holds them.

    Attributes:
      start: first step.
      batch: arrays (steps, examples of this process, ...); for resident data the indices of the examples.
      weight: (steps, examples of this process) 1, or 0 for padding.
      total: padded examples of a batch over all processes.
    """

    start: int
    batch: Any
    weight: np.ndarray
    total: int

    @property
    def steps(self) -> int:
        """Steps of the dispatch."""
        return self.weight.shape[0]


def chunks(start: int, stop: int, size: int, every: Sequence[int]) -> list[tuple[int, int]]:
    """(first, after last) step of each dispatch of at most `size` steps; none crosses a multiple of any of `every`."""
    out = []
    while start < stop:
        ends = [(start // n + 1) * n for n in (size, *every)]
        end = min(stop, *ends)
        out.append((start, end))
        start = end
    return out


class Loader:
    """The batches of a run from any step on, loaded ahead by threads.

    Order and content are functions of (step, seed): there is no state to save, and a run that goes on at step n starts
    the loader at n. Every process loads only its own part of each batch.

    Args:
      task: as `jaxprot.train.task.Task`.
      seed: of the order.
      parallel: the devices.
      plan: (first, after last) step of each dispatch.
      workers: threads; 0 loads in the caller's.
    """

    def __init__(self, task: Any, seed: int, parallel: Parallel, plan: Sequence[tuple[int, int]], workers: int = 2):
        self.task, self.seed, self.parallel, self.plan, self.workers = task, seed, parallel, list(plan), workers
        self.resident = getattr(task, "resident", None) is not None

    def _batch(self, step: int) -> tuple[Hashable, Any, np.ndarray, int]:
        shape, members, size = self.task.batches(step, self.seed)
        members = np.asarray(members)
        total = self.parallel.padded(max(size, len(members)))
        weight = (np.arange(total) < len(members)).astype(np.float32)
        members = np.resize(members, total)  # padding repeats examples, so its numbers are as finite as theirs
        part = self.parallel.mine(total)
        held = members[part].astype(np.int32) if self.resident else self.task.load(shape, members[part])
        return shape, held, weight[part], total

    def load(self, number: int) -> Chunk:
        """A dispatch of the plan."""
        start, stop = self.plan[number]
        parts = [self._batch(step) for step in range(start, stop)]
        if len({(shape, total) for shape, _, _, total in parts}) > 1:
            raise InputError("steps of one dispatch have batches of different shapes; set chunk to 1")
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *[held for _, held, _, _ in parts])
        return Chunk(start, batch, np.stack([weight for _, _, weight, _ in parts]), parts[0][3])

    def __iter__(self) -> Iterator[Chunk]:
        if not self.plan:
            return
        # The first is loaded here: it makes the task read its data, once, and what is wrong with them is raised here.
        yield self.load(0)
        rest = range(1, len(self.plan))
        if self.workers == 0:
            yield from map(self.load, rest)
        elif rest:
            options = grain.ReadOptions(num_threads=self.workers, prefetch_buffer_size=2 * self.workers)
            yield from grain.MapDataset.source(rest).map(self.load).to_iter_dataset(options)
