"""Running a module on inputs of many sizes: split once, compile once per bucket, micro-batch.

The only place where inference is jitted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

# Programs started before the first one's result is taken: two fill the cores that one leaves idle, and the host
# prepares the next input meanwhile.
_IN_FLIGHT = 2


class Runner:
    """Compiled functions of one module.

    A function is any `f(module, *arrays)`; it is compiled once for each shape of its arguments. The module's weights
    are passed flat, which costs a tenth of what passing the module does.

    Args:
      module: a built module.
      batch_items: padded items (residues, atoms) per micro-batch in `map`; None chooses by platform. On CPU one
        example at a time is fastest, because its arrays stay in cache.
    """

    def __init__(self, module: nnx.Module, batch_items: int | None = None):
        self.graphdef, state = nnx.split(module)
        self.leaves, self.treedef = jax.tree.flatten(state)
        if batch_items is None:
            batch_items = 0 if jax.default_backend() == "cpu" else 16384
        self.batch_items = batch_items
        self._compiled: dict[tuple[Callable, bool], Callable] = {}

    def pure(self, function: Callable) -> tuple[Callable, list[jax.Array]]:
        """(apply, leaves) with apply(leaves, *arrays): plain JAX, for `jit`, `vmap`, `grad` or sharding."""
        graphdef, treedef = self.graphdef, self.treedef

        def apply(leaves, *args):
            return function(nnx.merge(graphdef, jax.tree.unflatten(treedef, leaves)), *args)

        return apply, self.leaves

    def _compile(self, function: Callable, batched: bool) -> Callable:
        key = (function, batched)
        if key not in self._compiled:
            apply, _ = self.pure(function)
            if batched:
                single = apply

                def apply(leaves, args):
                    return jax.vmap(lambda one: single(leaves, *one))(args)

            self._compiled[key] = jax.jit(apply)
        return self._compiled[key]

    def __call__(self, function: Callable, *args: Any) -> Any:
        """Run a function on one example; pass the same function object each time, it is the key of the cache."""
        return self._compile(function, batched=False)(self.leaves, *args)

    def map(
        self, function: Callable, items: Iterable[tuple[int, tuple]], *, window: int = 64
    ) -> Iterator[tuple[int, Any]]:
        """Run a function on many padded examples.

        Args:
          function: `f(module, *arrays)`.
          items: (padded length, arguments) of each example; examples of one length have equal shapes.
          window: examples that may wait for a micro-batch to fill.

        Yields:
          (number of the example, numpy result), in the order in which they are ready.
        """
        waiting: dict[int, list[tuple[int, tuple]]] = {}
        running: collections.deque[tuple[list[int], bool, Any]] = collections.deque()

        def start(length: int, size: int) -> None:
            group = waiting.pop(length)
            numbers = [number for number, _ in group]
            if size == 1 or len(group) == 1:
                for number, args in group:
                    running.append(([number], False, self(function, *args)))
                return
            # The last group is filled up with its first example, so that a bucket has one batch shape.
            filled = [args for _, args in group] + [group[0][1]] * (size - len(group))
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
            running.append((numbers, True, self._compile(function, batched=True)(self.leaves, batch)))

        def finish(left: int) -> Iterator[tuple[int, Any]]:
            while len(running) > left:
                numbers, batched, out = running.popleft()
                out = jax.device_get(out)
                for place, number in enumerate(numbers):
                    yield number, jax.tree.map(lambda leaf, place=place: leaf[place], out) if batched else out

        for number, (length, args) in enumerate(items):
            waiting.setdefault(length, []).append((number, args))
            size = max(1, self.batch_items // max(1, length))
            if len(waiting[length]) >= size:
                start(length, size)
            elif sum(map(len, waiting.values())) >= window:
                fullest = max(waiting, key=lambda key: len(waiting[key]))
                start(fullest, max(1, self.batch_items // max(1, fullest)))
            yield from finish(_IN_FLIGHT)
        for length in list(waiting):
            start(length, max(1, self.batch_items // max(1, length)))
            yield from finish(_IN_FLIGHT)
        yield from finish(0)
