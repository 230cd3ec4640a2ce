"""Types of protein-protein interactions from vectors of proteins and the graph of known pairs.

GNN-PPI: G. Lv et al., IJCAI 2021, arXiv 2105.06709; graph isomorphism layer: K. Xu et al., ICLR 2019, arXiv 1810.00826.
The published evaluation passes messages along all pairs, those that are tested included; here the pairs that carry
messages are an argument of their own, and `carrying` tells which.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.nn.gvp import dropout

TYPES = ("reaction", "binding", "ptmod", "activation", "inhibition", "catalysis", "expression")
_ROOT_DEGREE = 5  # most pairs of the protein that a tested region grows from
_xavier = nnx.initializers.xavier_uniform()


class Interactions(nnx.Module):
    """One graph isomorphism layer over proteins, and a linear on the product of two of them.

    Args:
      inputs: channels of a protein's vector.
      width: channels inside.
      outputs: types.
      rate: of dropout.
      rngs: for the weights.
    """

    def __init__(self, inputs: int = 512, width: int = 512, outputs: int = len(TYPES), rate: float = 0.5, *, rngs: Any):
        def linear(a: int, b: int) -> nnx.Linear:
            return nnx.Linear(a, b, kernel_init=_xavier, rngs=rngs)

        self.rate = rate
        self.own = nnx.Param(jnp.zeros(()))  # epsilon of the published layer
        self.inner, self.outer = linear(inputs, width), linear(width, width)
        self.norm = nnx.BatchNorm(width, epsilon=1e-5, momentum=0.9, use_fast_variance=False, rngs=rngs)
        self.first, self.second = linear(width, width), linear(width, width)
        self.head = linear(width, outputs)

    def proteins(
        self,
        x: Float[Array, "p i"],
        edges: Int[Array, "e 2"],
        weight: Float[Array, "e"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "p c"]:
        """Proteins after messages along edges.

        Args:
          x: vectors.
          edges: pairs of rows, each in one order only.
          weight: 1 for edges, 0 for padding.
          key: switches dropout on.
        """
        sent = [(edges[:, 0], edges[:, 1]), (edges[:, 1], edges[:, 0])]
        around = jnp.zeros_like(x)
        for source, target in sent:
            around = around.at[target].add(x[source] * weight[:, None])
        h = (1 + self.own[...]) * x + around
        h = self.norm(jax.nn.relu(self.outer(jax.nn.relu(self.inner(h)))))
        return self.second(dropout(jax.nn.relu(self.first(h)), self.rate, key))

    def __call__(
        self,
        x: Float[Array, "p i"],
        edges: Int[Array, "e 2"],
        weight: Float[Array, "e"],
        pairs: Int[Array, "q 2"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "q o"]:
        """Logits of each pair; arguments as of `proteins`, and the pairs to tell of."""
        h = self.proteins(x, edges, weight, key)
        return self.head(h[pairs[:, 0]] * h[pairs[:, 1]])


def split(
    pairs: np.ndarray, mode: Literal["random", "bfs", "dfs"] = "bfs", share: float = 0.2, seed: int = 0
) -> np.ndarray:
    """Which pairs are tested.

    `bfs` and `dfs` take all pairs of proteins met on a walk, breadth or depth first, from a random protein of at most
    five pairs, until enough are taken: the tested region is one that training hardly knows.

    Args:
      pairs: (n, 2) numbers of proteins.
      mode: how they are chosen.
      share: of all pairs.
      seed: of the choice.

    Returns:
      (n,) bool.

    Raises:
      InputError: too few pairs.
      ValueError: another mode, or a share outside of (0, 1).
    """
    pairs = np.asarray(pairs)
    if mode not in ("random", "bfs", "dfs") or not 0 < share < 1:
        raise ValueError(f"mode random, bfs or dfs and a share between 0 and 1 are expected, got {mode!r} and {share}")
    wanted = int(share * len(pairs))
    if wanted < 1 or wanted >= len(pairs):
        raise InputError(f"{len(pairs)} pairs are too few to test a share of {share:g} of them")
    rng = np.random.default_rng(seed)
    tested = np.zeros(len(pairs), bool)
    if mode == "random":
        tested[rng.choice(len(pairs), wanted, replace=False)] = True
        return tested
    of: dict[int, list[tuple[int, int]]] = {}
    for row, (a, b) in enumerate(pairs.tolist()):
        of.setdefault(a, []).append((row, b))
        of.setdefault(b, []).append((row, a))
    proteins = np.array(sorted(of))
    degrees = np.array([len(of[p]) for p in proteins])
    few = proteins[degrees <= max(_ROOT_DEGREE, degrees.min())]
    waiting: list[int] = [int(rng.choice(few))]
    met: set[int] = set()
    taken = 0
    while taken < wanted:
        if not waiting:  # a component has ended
            waiting.append(int(rng.choice([p for p in proteins if p not in met])))
        protein = waiting.pop(0 if mode == "bfs" else -1)
        if protein in met:
            continue
        met.add(protein)
        for row, other in of[protein]:
            if not tested[row] and taken < wanted:
                tested[row] = True
                taken += 1
            if other not in met:
                waiting.append(other)
    return tested


def carrying(pairs: np.ndarray, tested: np.ndarray, leak: bool = False) -> np.ndarray:
    """Pairs that carry messages: those that are not tested; all with `leak`, as in the published evaluation.

    A tested pair that occurs again in any order carries none either.
    """
    pairs = np.asarray(pairs)
    if leak:
        return pairs
    held = {frozenset(pair) for pair in pairs[tested].tolist()}
    return pairs[[frozenset(pair) not in held for pair in pairs.tolist()]]
