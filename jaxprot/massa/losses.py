"""Losses of MASSA's pre-training: cross-entropy and the equalised focal loss.

Logits are (..., classes), labels (...) with -100 for what does not count. B. Li et al., CVPR 2022, arXiv 2201.02593.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxprot.massa.featurize import IGNORE, Labels

FOCAL = ("motif", "domain", "region")
"""Heads that are trained with the focal loss; the others with cross-entropy."""


def negative_log_likelihood(
    logits: Float[Array, "*n c"], labels: Int[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Minus log-probability of each label, and 1 where there is one; both 0 elsewhere."""
    valid = labels != IGNORE
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen = jnp.take_along_axis(log_probs, jnp.where(valid, labels, 0)[..., None], -1)[..., 0]
    return jnp.where(valid, -chosen, 0), valid.astype(jnp.float32)


def cross_entropy(logits: Float[Array, "*n c"], labels: Int[Array, "*n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) over all labels; the loss is their quotient, 0 without any."""
    loss, valid = negative_log_likelihood(logits, labels)
    return jnp.sum(loss), jnp.sum(valid)


def equalised_focal(
    logits: Float[Array, "*n c"], labels: Int[Array, "*n"], axis: str | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) of gamma / 2 (1 - p)**gamma (-log p) over all labels; the loss is their quotient.

    gamma = 2 + 8 (1 - r), where r is the quotient of the positive and the negative parts of the summed gradients
    (1 - p) / N, cut to [0, 1]. As published these are never negative, so r is 1, and this the focal loss with gamma 2,
    unless next to nothing is left to learn.

    Args:
      logits: of classes.
      labels: -100 for what does not count.
      axis: of devices, whose labels are counted together for gamma.
    """
    loss, valid = negative_log_likelihood(logits, labels)
    missing = -jnp.expm1(-loss) * valid  # 1 - p
    gradients, count = jax.lax.stop_gradient(jnp.sum(missing)), jnp.sum(valid)
    if axis is not None:
        gradients, count = jax.lax.psum((gradients, count), axis)
    gradients = gradients / jnp.maximum(count, 1)
    ratio = jnp.clip(jnp.maximum(gradients, 0) / (jnp.maximum(-gradients, 0) + 1e-9), 0, 1)
    gamma = 2 + 8 * (1 - ratio)
    # The derivative of a power at 0 is one of a logarithm of 0 unless the base is kept above it.
    power = jnp.maximum(missing, 1e-30) ** gamma
    return jnp.sum(gamma / 2 * power * loss), jnp.sum(valid)


def objectives(
    logits: Mapping[str, Array], labels: Labels, *, training: bool = True, axis: str | None = None
) -> dict[str, tuple[Array, Array]]:
    """(sum, number) of the loss of each head.

    Args:
      logits: of the heads.
      labels: what they should give.
      training: the focal loss for motifs, domains and regions; in validation it is cross-entropy for all.
      axis: of devices.
    """
    out = {}
    for name, values in logits.items():
        target = jnp.asarray(getattr(labels, name))
        if training and name in FOCAL:
            out[name] = equalised_focal(values, target, axis)
        else:
            out[name] = cross_entropy(values, target)
    return out


def total(parts: Mapping[str, tuple[Array, Array]]) -> Float[Array, ""]:
    """Sum of the means, all with weight 1; an objective without labels adds nothing."""
    return sum((loss / jnp.maximum(count, 1) for loss, count in parts.values()), jnp.zeros(()))
