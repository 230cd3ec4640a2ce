"""Scores of how well features suit a task, without training: what distances are compared with.

All take numpy arrays of float64 precision and are higher for features that should transfer better.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxprot.core.errors import InputError


def _matrix(features: np.ndarray, what: str = "features") -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(f"{what} of shape {features.shape}: expected (samples, columns)")
    if not np.isfinite(features).all():
        rows = np.flatnonzero(~np.isfinite(features).all(1))
        raise InputError(f"{what}: {len(rows)} rows hold NaN or infinity, the first is row {rows[0]}; leave them out")
    return features


def _codes(labels: np.ndarray, n: int, what: str = "labels") -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise InputError(f"{what} of shape {labels.shape} for {n} samples: expected one each")
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"{what}: one class only ({names[0]}); the score needs at least two")
    return codes.reshape(-1)


def logme(features: np.ndarray, labels: np.ndarray, *, regression: bool = False) -> float:
    """LogME: log evidence of a Bayesian linear model per sample (You et al., ICML 2021; fixed point: arXiv 2110.10545).

    Args:
      features: (n, d).
      labels: (n,) classes, or (n,) or (n, t) numbers for regression.
      regression: which of the two.

    Returns:
      Mean over the classes (one against the rest) or targets.

    Raises:
      InputError: shapes that do not fit, numbers that are not finite, or one class only.
    """
    features = _matrix(features)
    n, d = features.shape
    if regression:
        labels = np.asarray(labels)
        targets = _matrix(labels[:, None] if labels.ndim == 1 else labels, "targets")
        if len(targets) != n:
            raise InputError(f"{len(targets)} targets for {n} samples: expected one each")
    else:
        codes = _codes(labels, n)
        targets = (codes[:, None] == np.arange(codes.max() + 1)).astype(np.float64)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    sigma = s * s
    total = 0.0
    for y in targets.T:
        x = u.T @ y
        x2, outside = x * x, float(y @ y - x @ x)
        alpha = beta = 1.0
        m2 = res2 = 0.0
        for _ in range(11):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * x2 / (t + sigma) ** 2).sum()
            res2 = (x2 / (1 + sigma / t) ** 2).sum() + outside
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (res2 + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        # Directions that the features lack have sigma 0.
        log_det = np.log(alpha + beta * sigma).sum() + (d - len(sigma)) * np.log(alpha)
        evidence = d * np.log(alpha) + n * np.log(beta) - log_det - beta * res2 - alpha * m2 - n * np.log(2 * np.pi)
        total += evidence / (2 * n)
    return float(total / targets.shape[1])


def leep(source_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """LEEP: log likelihood of the labels given the source model's classes (Nguyen et al., ICML 2020).

    Args:
      source_probabilities: (n, z) what the source model gives its own classes on the target's samples; rows sum to 1.
      labels: (n,) classes of the target.

    Returns:
      Mean over samples of log sum_z theta(z) P(label | z), at most 0.
    """
    theta = _matrix(source_probabilities, "source probabilities")
    if (theta < 0).any() or np.abs(theta.sum(1) - 1).max() > 1e-3:
        raise InputError("source probabilities: rows must be at least 0 and sum to 1; apply the softmax first")
    codes = _codes(labels, len(theta))
    joint = np.zeros((codes.max() + 1, theta.shape[1]))
    np.add.at(joint, codes, theta / len(theta))
    conditional = joint / np.maximum(joint.sum(0), 1e-300)[None, :]
    return float(np.log(np.maximum((theta * conditional[codes]).sum(1), 1e-300)).mean())


def nce(source_labels: np.ndarray, labels: np.ndarray) -> float:
    """Negative conditional entropy of the labels given the source's labels (Tran et al., ICCV 2019).

    Args:
      source_labels: (n,) classes that the source model gives the target's samples; may be one class only.
      labels: (n,) classes of the target.
    """
    source = np.unique(np.asarray(source_labels), return_inverse=True)[1].reshape(-1)
    codes = _codes(labels, len(source))
    joint = np.zeros((codes.max() + 1, source.max() + 1))
    np.add.at(joint, (codes, source), 1 / len(codes))
    given = joint.sum(0, keepdims=True)
    return float((joint * np.log(joint / given + 1e-20)).sum())


def hscore(features: np.ndarray, labels: np.ndarray) -> float:
    """H-score: variance of class means against that of all samples (Bao et al., ICIP 2019).

    Args:
      features: (n, d).
      labels: (n,) classes.
    """
    features = _matrix(features)
    codes = _codes(labels, len(features))
    means = _class_means(features, codes)[codes]
    within = np.cov(features, rowvar=False, bias=True).reshape(features.shape[1], -1)
    between = np.cov(means, rowvar=False, bias=True).reshape(features.shape[1], -1)
    return float(np.trace(np.linalg.pinv(within, rcond=1e-15, hermitian=True) @ between))


def transrate(features: np.ndarray, labels: np.ndarray, *, eps: float = 1e-4) -> float:
    """TransRate: coding rate of all samples less that within classes (Huang et al., ICML 2022).

    Args:
      features: (n, d).
      labels: (n,) classes.
      eps: squared distortion of the code.
    """
    features = _matrix(features)
    codes = _codes(labels, len(features))
    centred = features - features.mean(0)
    value = _rate(centred, eps)
    for code in range(codes.max() + 1):
        part = centred[codes == code]
        value -= len(part) / len(features) * _rate(part, eps)
    return float(value)


def _rate(z: np.ndarray, eps: float) -> float:
    gram = z.T @ z if z.shape[1] <= len(z) else z @ z.T
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(z) * eps))[1])


def _class_means(features: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros((codes.max() + 1, features.shape[1]))
    np.add.at(sums, codes, features)
    return sums / np.bincount(codes)[:, None]


def discriminant(
    features: np.ndarray, labels: np.ndarray, *, shrinkage: float = 0.1
) -> Callable[[np.ndarray], np.ndarray]:
    """Linear discriminant analysis (Fisher, 1936): a source model for LEEP and NCE where none is given.

    Args:
      features: (n, d) of the source.
      labels: (n,) classes of the source.
      shrinkage: share of the mean variance in the covariance within classes.

    Returns:
      Function of (m, d) features that gives (m, classes) probabilities.
    """
    features = _matrix(features)
    codes = _codes(labels, len(features))
    means = _class_means(features, codes)
    residual = features - means[codes]
    covariance = residual.T @ residual / len(features)
    spread = max(float(np.trace(covariance)) / len(covariance), 1e-300)
    covariance = (1 - shrinkage) * covariance + shrinkage * spread * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means.T)
    offset = np.log(np.bincount(codes) / len(codes)) - 0.5 * (means.T * weights).sum(0)

    def probabilities(samples: np.ndarray) -> np.ndarray:
        scores = _matrix(samples) @ weights + offset[None, :]
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    return probabilities
