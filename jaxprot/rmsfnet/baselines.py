"""Flexibility without a network: elastic networks, contact numbers and B factors, one value per residue.

All of it is host code in float64, exact up to some thousand residues; `ops.elastic` has the same sums for batches on a
device.

What an Å means: B factors give it by themselves, sqrt(3 B / 8π²). The other three know shapes only. Each has one scale
for all proteins, chosen such that the alpha carbons of residues 1-70 of ubiquitin (1UBI) have the mean RMSF of the
ensemble 2K39 (0.846 Å; NMR with residual dipolar couplings, so up to microseconds). Hence a floppy protein has larger
values than a stiff one, and values compare between the three methods.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.ops.elastic import ANM_CUTOFF, CONTACT_CUTOFF, GNM_CUTOFF

Method = Literal["anm", "gnm", "contact", "bfactor"]
METHODS: tuple[Method, ...] = get_args(Method)

ANM_SCALE = 2.355
"""kT / spring constant of the anisotropic network in Å² (see above)."""

GNM_SCALE = 3.007
"""kT / spring constant of the Gaussian network in Å²."""

CONTACT_SCALE = 182.8
"""RMSF in Å times the number of heavy atoms within 13 Å."""

_TINY = 60  # rows up to which all modes are computed: three nodes on a line have fewer rigid motions than others
_ALL_MODES = 3000  # the same for networks with loose parts (4 s); larger ones are treated like those without an inverse
_DENSE_MOST = 13_500  # rows up to which the exact inverse is computed (1.5 GB, some 20 s on 2 cores)
_MODES = 100  # soft modes beyond that
_LOOSE = 1e-9  # of the largest eigenvalue: modes below cost nothing


def rmsf(structure: Structure, method: Method) -> np.ndarray:
    """Root mean squared fluctuation of every residue by a method without parameters to train.

    Only protein residues with an alpha carbon have a value. Nucleic acids and ligands count as contacts, but are no
    nodes of the elastic networks.

    Args:
      structure: coordinates in Å; the first model counts.
      method: `"anm"` (anisotropic network, 15 Å), `"gnm"` (Gaussian network, 10 Å), `"contact"` (1 / number of heavy
        atoms within 13 Å of the alpha carbon, waters apart) or `"bfactor"` (B factor of the alpha carbon).

    Returns:
      (R,) float32 in Å, NaN where there is no value: no protein residue, a residue apart from all others, another
      model, no B factor (0 or less). The scale is explained at the top of this module.

    Raises:
      InputError: unknown method, no protein residue with an alpha carbon, or a structure without B factors.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    atoms = alpha_carbons(structure)
    if len(atoms) == 0:
        raise InputError(f"{structure.name}: no protein residue with an alpha carbon (CA) and coordinates")
    if method == "bfactor":
        b = structure.bfactor[atoms].astype(np.float64)
        b[~(b > 0)] = np.nan
        if np.isnan(b).all():
            raise InputError(f"{structure.name}: no B factors (all 0) in the file; choose another method")
        values = np.sqrt(3 * b / (8 * np.pi**2))
    else:
        xyz = structure.xyz[atoms].astype(np.float64)
        if method == "contact":
            values = CONTACT_SCALE / contact_number(xyz, _heavy(structure))
        elif method == "anm":
            values = np.sqrt(ANM_SCALE * anm(xyz))
        else:
            values = np.sqrt(GNM_SCALE * gnm(xyz))
    out = np.full(structure.n_residues, np.nan, np.float32)
    out[structure.atom_residue[atoms]] = values
    return out


def alpha_carbons(structure: Structure) -> np.ndarray:
    """Atoms that stand for protein residues: the first alpha carbon of each, in the first model.

    A residue is protein if its name is an amino acid's or it has the backbone atoms N, CA, C. Of two residue types at
    one number (micro-heterogeneity) the first counts.

    Returns:
      (n,) rows of atoms, ascending.
    """
    if structure.n_atoms == 0:
        return np.zeros(0, np.int64)
    backbone = np.ones(structure.n_residues, bool)
    for name in ("N", "C"):
        has = np.zeros(structure.n_residues, bool)
        has[structure.atom_residue[structure.atom_name == name]] = True
        backbone &= has
    protein = backbone | (structure.letters != "X")
    calcium = (structure.element == "CA") | (structure.res_name == "CA")[structure.atom_residue]
    good = (structure.atom_name == "CA") & ~calcium & np.isfinite(structure.xyz).all(1)
    good &= protein[structure.atom_residue] & (structure.model == structure.model[0])
    rows = np.flatnonzero(good)
    at = structure.atom_residue[rows]
    site = list(
        zip(structure.res_chain[at].tolist(), structure.resid[at].tolist(), structure.icode[at].tolist(), strict=True)
    )
    first = dict(zip(reversed(site), reversed(rows.tolist()), strict=True))
    return np.array(sorted(first.values()), np.int64)


def contact_number(xyz: np.ndarray, others: np.ndarray, cutoff: float = CONTACT_CUTOFF) -> np.ndarray:
    """Number of points within a distance of every node, the node's own place apart.

    Args:
      xyz: (n, 3) nodes in Å.
      others: (m, 3) points to count in Å.
      cutoff: largest distance in Å.

    Returns:
      (n,) float64 counts; NaN where there is none.
    """
    from scipy.spatial import KDTree

    tree = KDTree(others)
    near, same = (tree.query_ball_point(xyz, radius, return_length=True) for radius in (cutoff, 1e-3))
    count = (near - same).astype(np.float64)
    return np.where(count > 0, count, np.nan)


def anm(xyz: np.ndarray, cutoff: float = ANM_CUTOFF) -> np.ndarray:
    """Mean squared fluctuations of the anisotropic network in units of kT / spring constant.

    Exact up to 4500 nodes in one piece. Beyond that the 100 softest modes and, for all others, the motion of a node in
    the cage of its neighbours held still: on an RNA polymerase (3217 nodes) this gives the exact RMSF to 3 % (r 0.999).

    Args:
      xyz: (n, 3) nodes in Å.
      cutoff: largest length of a spring in Å.

    Returns:
      (n,) float64; NaN for a node without neighbours. Parts that do not touch move by themselves.
    """

    def one(xyz, pairs):
        return _anm_inverse(xyz, pairs).reshape(-1, 3).sum(1)

    return _by_part(xyz, cutoff, one)


def gnm(xyz: np.ndarray, cutoff: float = GNM_CUTOFF) -> np.ndarray:
    """Mean squared fluctuations of the Gaussian network in units of kT / spring constant; exact up to 13 500 nodes.

    Args and result as in `anm`.
    """

    def one(xyz, pairs):
        n = len(xyz)
        i, j = pairs.T
        degree = np.bincount(pairs.ravel(), minlength=n).astype(np.float64)
        rows, columns = np.concatenate([i, j, np.arange(n)]), np.concatenate([j, i, np.arange(n)])
        values = np.concatenate([np.full(2 * len(pairs), -1.0), degree])
        free = np.full((n, 1), n**-0.5)
        return 3 * _inverse_diagonal(rows, columns, values, free, lambda: 1 / degree)

    return _by_part(xyz, cutoff, one)


def _by_part(xyz: np.ndarray, cutoff: float, one: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Runs `one(xyz, pairs)` on every connected part of the network."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    xyz = np.asarray(xyz, np.float64)
    n = len(xyz)
    out = np.full(n, np.nan)
    if n < 2:
        return out
    pairs = KDTree(xyz).query_pairs(cutoff, output_type="ndarray")
    pairs = pairs[np.square(xyz[pairs[:, 0]] - xyz[pairs[:, 1]]).sum(1) > 1e-6]  # nodes at one place have no direction
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    for part in range(label.max() + 1):
        nodes = np.flatnonzero(label == part)
        if len(nodes) > 1:
            place = np.zeros(n, np.int64)
            place[nodes] = np.arange(len(nodes))
            out[nodes] = one(xyz[nodes], place[pairs[label[pairs[:, 0]] == part]])
    return out


def _anm_inverse(xyz: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(3 n,) diagonal of the pseudo-inverse of the Hessian."""
    n = len(xyz)
    i, j = pairs.T
    unit = xyz[j] - xyz[i]
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    spring = unit[:, :, None] * unit[:, None, :]
    own = np.zeros((n, 3, 3))
    np.add.at(own, i, spring)
    np.add.at(own, j, spring)
    node = np.arange(n)
    rows, columns = np.concatenate([i, j, node]), np.concatenate([j, i, node])
    blocks = np.concatenate([-spring, -spring, own])
    axis = np.arange(3)
    rows = np.broadcast_to(3 * rows[:, None, None] + axis[:, None], blocks.shape).ravel()
    columns = np.broadcast_to(3 * columns[:, None, None] + axis, blocks.shape).ravel()
    centred = xyz - xyz.mean(0)
    shift = np.broadcast_to(np.eye(3), (n, 3, 3))
    turn = np.cross(np.eye(3)[None], centred[:, None]).transpose(0, 2, 1)
    free, _ = np.linalg.qr(np.concatenate([shift, turn], -1).reshape(3 * n, 6))

    def cage():
        return np.diagonal(np.linalg.pinv(own, hermitian=True), axis1=1, axis2=2).ravel()

    return _inverse_diagonal(rows, columns, blocks.ravel(), free, cage)


def _inverse_diagonal(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, free: np.ndarray, cage: Callable[[], np.ndarray]
) -> np.ndarray:
    """Diagonal of the pseudo-inverse of a sparse symmetric matrix with known null vectors.

    Args:
      rows: (e,) of the entries, both triangles.
      columns: (e,)
      values: (e,)
      free: (d, f) orthonormal null vectors.
      cage: (d,) diagonal of the inverse of the diagonal blocks, for matrices too large for an exact inverse.

    Returns:
      (d,)
    """
    from scipy.linalg import eigh, get_blas_funcs, get_lapack_funcs
    from scipy.sparse import csc_matrix

    d = len(free)
    sparse = csc_matrix((values, (rows, columns)), shape=(d, d))
    stiff = sparse.diagonal().mean()
    if _TINY < d <= _DENSE_MOST:
        # With a stiffness for the rigid motions the matrix is positive, and A⁻¹ = L⁻ᵀ L⁻¹; all in the place of A.
        (syrk,) = get_blas_funcs(("syrk",), dtype=np.float64)
        potrf, trtri = get_lapack_funcs(("potrf", "trtri"), dtype=np.float64)
        dense = syrk(stiff, free, beta=1.0, c=sparse.toarray(order="F"), lower=1, overwrite_c=1)
        dense, failed = potrf(dense, lower=1, clean=1, overwrite_a=1)
        if not failed and np.square(dense.diagonal()).min() > _LOOSE * stiff:
            inverse, _ = trtri(dense, lower=1, overwrite_c=1)
            return np.einsum("ij,ij->j", inverse, inverse) - np.square(free).sum(1) / stiff
    if d <= _ALL_MODES:
        levels, modes = eigh(sparse.toarray(), overwrite_a=True, check_finite=False)
        kept = levels > _LOOSE * levels[-1]
        return np.square(modes[:, kept]) @ (1 / levels[kept])
    return _soft_modes(sparse, free.shape[1]) + cage()


def _soft_modes(sparse, n_free: int) -> np.ndarray:
    """(d,) contribution of the softest modes that cost something."""
    from scipy.sparse import identity
    from scipy.sparse.linalg import LinearOperator, eigsh, splu

    d = sparse.shape[0]
    shift = 1e-6 * sparse.diagonal().mean()
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    factors = splu((sparse + shift * identity(d, format="csc")).tocsc(), **options)
    solve = LinearOperator((d, d), matvec=factors.solve, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = np.random.default_rng(0).normal(size=d)  # a fixed one: equal input, equal output
    levels, modes = eigsh(sparse, k=_MODES + n_free, sigma=-shift, OPinv=solve, which="LM", v0=start)
    kept = levels > _LOOSE * sparse.diagonal().max()
    return np.square(modes[:, kept]) @ (1 / levels[kept])


def _heavy(structure: Structure) -> np.ndarray:
    """(m, 3) heavy atoms of the first model and first alternate locations, waters apart, in Å."""
    first = structure.first_model().first_altlocs()
    water = np.isin(np.char.upper(first.res_name.astype(str)), sorted(residues.WATER))[first.atom_residue]
    keep = ~water & ~np.isin(first.element, ("H", "D")) & np.isfinite(first.xyz).all(1)
    return first.xyz[keep].astype(np.float64)
