"""The optimal transport data set distance: labels are compared by the features of their classes.

Alvarez-Melis and Fusi, NeurIPS 2020 (arXiv 2002.02923). The cost between two samples is half the squared distance of
their features plus half the squared Bures-Wasserstein distance of the Gaussians of their classes, so that tasks with
different labels are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.ot.sinkhorn import Factors

_CLASSES = (8, 16, 32, 64, 128, 256, 512, 1024)
_BATCH = 2**24  # numbers in a batch of products between classes


def label_distances(classes: Sequence[np.ndarray], *, diagonal: bool = False) -> np.ndarray:
    """Squared Bures-Wasserstein distances between the Gaussians of classes.

    The covariances (unbiased) may be singular, as they are wherever a class has fewer samples than there are features;
    a class of one sample is a point. Of classes smaller than the number of features the nuclear norm needs only the
    products between their samples.

    Args:
      classes: k arrays (samples, d).
      diagonal: leave out covariances between features.

    Returns:
      (k, k), float64, symmetric, 0 on the diagonal.
    """
    parts = [np.asarray(part, np.float64) for part in classes]
    means = np.stack([part.mean(0) for part in parts])
    centred = [(part - mean) / np.sqrt(max(len(part) - 1, 1)) for part, mean in zip(parts, means, strict=True)]
    out = np.stack([((means - mean) ** 2).sum(1) for mean in means])
    if diagonal:
        deviations = np.stack([np.sqrt((part * part).sum(0)) for part in centred])
        out += np.stack([((deviations - one) ** 2).sum(1) for one in deviations])
    else:
        traces = np.array([(part * part).sum() for part in centred])
        out += traces[:, None] + traces[None, :] - 2 * _nuclear_norms([_shortened(part) for part in centred])
    out = np.maximum((out + out.T) / 2, 0)
    np.fill_diagonal(out, 0)
    return out


def _shortened(rows: np.ndarray) -> np.ndarray:
    """Rows with the same A^T A, at most as many as columns."""
    return np.linalg.qr(rows, mode="r") if len(rows) > rows.shape[1] else rows


def _nuclear_norms(parts: list[np.ndarray]) -> np.ndarray:
    """(k, k) nuclear norms of A_i A_j^T; classes of similar size are done together."""
    k, d = len(parts), parts[0].shape[1]
    out = np.zeros((k, k))
    groups: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(1 << (len(part) - 1).bit_length(), []).append(index)
    for size, members in groups.items():
        stack = np.zeros((len(members), size, d))
        for row, index in enumerate(members):
            stack[row, : len(parts[index])] = parts[index]
        for first, part in enumerate(parts):
            later = np.array([row for row, index in enumerate(members) if index > first], int)
            step = max(1, _BATCH // (size * max(len(part), size)))
            for start in range(0, len(later), step):
                rows = later[start : start + step]
                product = part @ stack[rows].transpose(0, 2, 1)
                if size < len(part):
                    product = product.transpose(0, 2, 1)
                # Roots of these eigenvalues are the singular values, at a third of the time.
                squares = np.linalg.eigvalsh(product @ product.transpose(0, 2, 1))
                out[first, np.array(members)[rows]] = np.sqrt(np.maximum(squares, 0)).sum(-1)
    return out + out.T


def factors(
    x: np.ndarray,
    y: np.ndarray,
    labels_x: np.ndarray | None = None,
    labels_y: np.ndarray | None = None,
    table: np.ndarray | None = None,
    *,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    dtype: type = np.float64,
) -> Factors:
    """The cost feature_weight |x - y|^2 / 2 + label_weight table[label x, label y] / 2 in factors.

    Args:
      x: (n, d).
      y: (m, d).
      labels_x: (n,) rows of the table; without labels the features alone count.
      labels_y: (m,) columns of the table.
      table: squared distances between classes.
      feature_weight: of the features.
      label_weight: of the labels.
      dtype: of the factors.
    """
    left, right = x * np.asarray(-feature_weight, x.dtype), y
    if table is not None and labels_x is not None and labels_y is not None:
        # Sizes in steps, so that tasks with different numbers of classes share programs.
        width = bucket_length(max(table.shape), _CLASSES)
        one_hot = np.zeros((len(x), width), x.dtype)
        one_hot[np.arange(len(x)), labels_x] = 1
        costs = np.zeros((len(y), width), y.dtype)
        costs[:, : table.shape[0]] = label_weight / 2 * table.T[labels_y]
        left, right = np.concatenate([left, one_hot], 1), np.concatenate([right, costs], 1)
    squares = [feature_weight / 2 * np.einsum("nd,nd->n", z, z) for z in (x, y)]
    return Factors(*(np.asarray(part, dtype) for part in (left, right, *squares)))
