"""Ranking designed sequences by predicted stability."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import InputError
from jaxprot.core.residues import STANDARD, UNKNOWN
from jaxprot.proteinmpnn.featurize import featurize, pad_features
from jaxprot.proteinmpnn.results import Designs
from jaxprot.thermompnn.predict import Predictor, ddg_scan


def rank_designs(predictor: Predictor, designs: Designs, *, sort: bool = True) -> Designs:
    """Estimates how designs change the stability of the native protein on its backbone.

    The estimate sums single mutations, once from the native sequence towards the design and once, with the design's
    sequence on the same backbone, back to the native one; the mean of the first and the negative of the second is the
    result. It would be exact if mutations added up; over many mutations take it as a rank, not as kcal/mol. Residues
    that are unknown in the native or the designed sequence do not count.

    Args:
      predictor: with weights for single mutations.
      designs: of one structure.
      sort: best (lowest ddG) first.

    Returns:
      The designs with `ddg` (kcal/mol, positive = less stable than the native sequence).

    Raises:
      InputError: the weights are those of the double-mutant model.
    """
    predictor.needs_single("ranking designs")
    if not any(chain.mask.any() for chain in designs.chains):
        raise InputError(
            f"{designs.name}: no residue has a complete backbone (N, CA, C, O), which the stability model needs; "
            "rank by score instead"
        )
    n = len(designs.native)
    features = featurize(designs.chains, sort=False)
    length = bucket_length(n)

    def items():
        for letters in (designs.native, *designs.letters):
            threaded = features._replace(S=np.asarray(letters, np.int32))
            yield length, (pad_features(threaded, length),)

    scans = np.zeros((1 + len(designs), n, len(STANDARD)), np.float32)
    for number, ddg in predictor.runner.map(ddg_scan, items()):
        scans[number] = ddg[:n]
    ddg = symmetrised(scans[0], scans[1:], designs.native, designs.letters)
    out = dataclasses.replace(designs, ddg=ddg)
    return out.ranked("ddg") if sort else out


def symmetrised(
    from_native: np.ndarray, from_design: np.ndarray, native: np.ndarray, letters: np.ndarray
) -> np.ndarray:
    """Half the additive ddG towards each design minus half that back to the native sequence, kcal/mol.

    Args:
      from_native: (n, 20) scan of the native sequence.
      from_design: (b, n, 20) scans of the designs.
      native: (n,) letters as indices into ACDEFGHIKLMNPQRSTVWYX.
      letters: (b, n) designed letters.

    Returns:
      (b,) values.
    """
    changed = (letters != native) & (letters != UNKNOWN) & (native != UNKNOWN)
    rows = np.arange(len(native))
    there = from_native[rows, np.minimum(letters, UNKNOWN - 1)]
    back = from_design[:, rows, np.minimum(native, UNKNOWN - 1)]
    return (0.5 * np.where(changed, there - back, 0.0).sum(axis=1)).astype(np.float32)
