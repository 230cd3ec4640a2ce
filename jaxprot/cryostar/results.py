"""What an analysis of heterogeneity writes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from typing import TYPE_CHECKING

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.particles import ParticleStack
from jaxprot.core.structure import Structure
from jaxprot.cryostar.gmm import Beads
from jaxprot.cryostar.landscape import Decode, Landscape, analyse, mobility
from jaxprot.io.outputs import RunDirectory, atomic_path, write_json, write_text
from jaxprot.io.particles import write_particles
from jaxprot.io.structures import write_structure
from jaxprot.io.tables import write_table

if TYPE_CHECKING:
    import pandas

MOST_ATOMS = 9999
"""Beads that are written to a PDB file; more (or more than 62 chains) go to mmCIF."""

MOST_CHAINS = 62

_DONE = "analysis.json"
_OWN = re.compile(
    r"(pca-\d+|kmeans|mobility)\.(pdb|cif)|view\.(pml|cxc)|landscape\.png|(clusters|mobility)\.(csv|parquet)"
)
_MAPS = re.compile(
    r"vol_(kmeans|pca_\d+)_\d+\.mrc|(half_|true_)?(fsc|resolution)\.(csv|parquet)|(pca-\d+|kmeans)\.(pdb|cif)"
    r"|view\.(pml|cxc)|(latents|labels)\.npy|clusters\.(csv|parquet)|landscape\.png"
)


def models_of(frames: np.ndarray, beads: Beads, values: np.ndarray | None = None) -> Structure:
    """Conformations as models of one structure, of one atom per residue.

    Args:
      frames: (M, N, 3) Å.
      beads: the N residues.
      values: (N,) or (M, N) for the B-factor column; None for 0.
    """
    frames = np.asarray(frames, np.float32)
    n_models, n = frames.shape[:2]
    if frames.shape[1:] != (len(beads), 3):
        raise ValueError(f"conformations of shape {frames.shape}, expected (models, {len(beads)}, 3)")
    starts = np.flatnonzero(np.r_[True, beads.chain[1:] != beads.chain[:-1]])
    chain_of = np.searchsorted(starts, np.arange(n), side="right") - 1
    steps = np.repeat(np.arange(n_models), n)
    bfactor = np.broadcast_to(np.zeros(n, np.float32) if values is None else values, (n_models, n))
    return Structure(
        name=beads.name,
        xyz=frames.reshape(-1, 3),
        atom_name=np.tile(beads.atom_name.astype("U4"), n_models),
        element=np.full(n_models * n, "C", "U2"),
        altloc=np.full(n_models * n, "", "U1"),
        occupancy=np.ones(n_models * n, np.float32),
        bfactor=np.asarray(bfactor, np.float32).ravel(),
        serial=np.tile(np.arange(1, n + 1, dtype=np.int32), n_models),
        model=(steps + 1).astype(np.int32),
        atom_residue=np.arange(n_models * n, dtype=np.int32),
        res_name=np.tile(beads.res_name, n_models),
        resid=np.tile(beads.resid.astype(np.int32), n_models),
        icode=np.tile(beads.icode, n_models),
        hetero=np.zeros(n_models * n, bool),
        res_chain=(np.tile(chain_of, n_models) + steps * len(starts)).astype(np.int32),
        chain_id=np.tile(beads.chain[starts].astype("U8"), n_models),
    )


def write_models(
    frames: np.ndarray, beads: Beads, path: str | os.PathLike, values: np.ndarray | None = None
) -> pathlib.Path:
    """Writes conformations as the models of a PDB file, or of an mmCIF file where a PDB file cannot hold them.

    Args:
      frames: (M, N, 3) Å.
      beads: the N residues.
      path: target ending in `.pdb` or `.cif`.
      values: (N,) or (M, N) for the B-factor column; None for 0.

    Returns:
      The path written to, ending in `.cif` where the model has more than 9999 beads or 62 chains, longer names,
      or numbers or coordinates beyond the columns.
    """
    path = pathlib.Path(path)
    structure = models_of(frames, beads, values)
    if path.suffix == ".pdb" and not _fits_pdb(beads, structure.xyz):
        path = path.with_suffix(".cif")
    write_structure(structure, path)
    return path


def _fits_pdb(beads: Beads, xyz: np.ndarray) -> bool:
    chains = np.unique(beads.chain)
    few = len(beads) <= MOST_ATOMS and len(chains) <= MOST_CHAINS
    names = all(len(name) <= 1 for name in chains) and all(len(name) <= 3 for name in np.unique(beads.res_name))
    numbers = beads.resid.min() > -1000 and beads.resid.max() < 10_000
    places = np.isfinite(xyz).all() and xyz.min() > -1000 and xyz.max() < 10_000
    return bool(few and names and numbers and places)


@dataclasses.dataclass(frozen=True, eq=False)
class Heterogeneity:
    """Conformations of a set of particles.

    Attributes:
      landscape: latents with their components and clusters.
      beads: residues of the reference.
      paths: for each component, (s, N, 3) float32 Å, conformations along its traversal.
      centres: (c, N, 3) float32 Å, conformations at the clusters' centres.
      mobility: (N,) float64 Å, root mean square deviation of each bead from its mean place over the particles.
      stack: the particles; None if they are not at hand.
    """

    landscape: Landscape
    beads: Beads
    paths: tuple[np.ndarray, ...]
    centres: np.ndarray
    mobility: np.ndarray
    stack: ParticleStack | None = None

    @classmethod
    def of(
        cls,
        latents: np.ndarray,
        decode: Decode,
        beads: Beads,
        stack: ParticleStack | None = None,
        *,
        components: int = 3,
        points: int = 10,
        clusters: int = 10,
        umap: bool = False,
        seed: int = 0,
    ) -> Heterogeneity:
        """Analyses latents and decodes what stands for them.

        Args:
          latents: (n, k) in the order of the particles.
          decode: (b, k) latents to (b, N, 3) conformations in Å.
          beads: the N residues.
          stack: the n particles.
          components: traversals.
          points: conformations of each.
          clusters: groups.
          umap: see `landscape.analyse`.
          seed: of clusters, UMAP and the particles whose mobility is taken.

        Raises:
          InputError: another number of latents than of particles, or latents that are not finite.
        """
        if stack is not None and len(latents) != len(stack):
            raise InputError(
                f"{stack.name}: {len(stack)} particles, but {len(latents)} latents; give the particles that the "
                "latents were made of, in their order"
            )
        found = analyse(latents, components=components, points=points, clusters=clusters, umap=umap, seed=seed)
        centres = np.asarray(decode(found.latents[found.clusters.rows]), np.float32)
        if centres.shape[1:] != (len(beads), 3):
            raise InputError(f"{beads.name}: {len(beads)} beads, but conformations of {centres.shape[1]}")
        return cls(
            landscape=found,
            beads=beads,
            paths=tuple(np.asarray(decode(found.latents[one.rows]), np.float32) for one in found.traversals),
            centres=centres,
            mobility=mobility(decode, found.latents, seed=seed),
            stack=stack,
        )

    def residues(self) -> dict[str, np.ndarray]:
        """Columns of `mobility.csv`: the beads in the order of the reference."""
        b = self.beads
        return {
            "chain": b.chain,
            "resid": b.resid,
            "icode": b.icode,
            "resname": b.res_name,
            "mobility_angstrom": np.round(self.mobility, 4),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """`residues()` as a pandas table."""
        import pandas

        return pandas.DataFrame(self.residues())

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the landscape, see the function `plot`."""
        plot(self.landscape, path, self.beads.name)

    def write(self, folder: str | os.PathLike, *, format: str = "csv", overwrite: bool = False) -> list[str]:  # noqa: A002
        """Writes the analysis; `analysis.json`, which lists the files, comes last: a folder without it is not complete.

        Args:
          folder: made if it is not there.
          format: of the tables, `csv` or `parquet`.
          overwrite: allow a folder that holds something; files of an earlier analysis are removed first.

        Returns:
          Names of the files: `latents.npy` (n, k), `labels.npy` (n,) cluster of each particle, `pca-1.pdb` ... (a model
          for each step), `kmeans.pdb` (a model for each cluster), `mobility.pdb` (B-factors are mobilities in Å),
          `mobility.csv`, `clusters.csv`, `clusters/cluster_00.star` ... (the particles of each cluster),
          `landscape.png`, `view.pml`, `view.cxc` and `analysis.json`.

        Raises:
          OutputError: the folder holds something, or a file cannot be written.
        """
        home = RunDirectory(folder, overwrite).folder()
        _clear(home)
        found = self.landscape
        written = write_landscape(found, self.stack, home, self.beads.name, format)
        models = {f"pca-{axis + 1}.pdb": frames for axis, frames in enumerate(self.paths)}
        models |= {"kmeans.pdb": self.centres, "mobility.pdb": self.beads.xyz[None]}
        written += [
            write_models(frames, self.beads, home / name, self.mobility).name for name, frames in models.items()
        ]
        written.append(write_table(self.residues(), home / "mobility", format).name)
        written += write_views(home)
        summary = {
            "particles": len(found.latents),
            "clusters": groups(found)["particles"],
            "variance_share": found.pca.share,
            "plane": found.plane_kind,
            "files": written,
        }
        write_json(home / _DONE, summary)
        return [*written, _DONE]


def groups(found: Landscape) -> dict[str, np.ndarray]:
    """Columns of `clusters.csv`: number, particles, and the particle (row from 1) nearest to the centre."""
    clusters = found.clusters
    return {
        "cluster": np.arange(len(clusters.rows)),
        "particles": np.bincount(clusters.labels, minlength=len(clusters.rows)),
        "nearest_row": clusters.rows + 1,
    }


def plot(found: Landscape, path: str | os.PathLike, name: str) -> None:
    """Draws the landscape, and the particles that stand for clusters and for steps along two components."""
    from jaxprot.plots.landscape import landscape

    labels = ("UMAP 1", "UMAP 2")
    if found.plane_kind == "pca":
        shares = [*found.pca.share[:2], 0.0, 0.0]
        labels = (f"PC 1 ({shares[0]:.0%} of the variance)", f"PC 2 ({shares[1]:.0%})")
    with atomic_path(path) as temporary:
        landscape(
            found.plane,
            temporary,
            name,
            axes=labels,
            centres=found.plane[found.clusters.rows],
            sizes=groups(found)["particles"].tolist(),
            paths={f"pca-{axis + 1}": found.plane[one.rows] for axis, one in enumerate(found.traversals[:2])},
        )


def write_landscape(
    found: Landscape,
    stack: ParticleStack | None,
    folder: str | os.PathLike,
    name: str,
    format: str = "csv",  # noqa: A002
) -> list[str]:
    """Writes what latents tell without a model.

    Args:
      found: the latents' components and clusters.
      stack: the particles; None if they are not at hand.
      folder: is there.
      name: of the picture.
      format: of the table, `csv` or `parquet`.

    Returns:
      Names of the files: `latents.npy`, `labels.npy`, `clusters.csv`, `clusters/cluster_00.star` ... and
      `landscape.png`.
    """
    home, written = pathlib.Path(folder), []
    for stem, array in (("latents.npy", found.latents), ("labels.npy", found.clusters.labels)):
        with atomic_path(home / stem) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
        written.append(stem)
    written.append(write_table(groups(found), home / "clusters", format).name)
    if stack is not None:
        for number in range(len(found.clusters.rows)):
            star = f"clusters/cluster_{number:02d}.star"
            write_particles(stack, home / star, found.clusters.labels == number)
            written.append(star)
    plot(found, home / "landscape.png", name)
    return [*written, "landscape.png"]


def write_views(folder: str | os.PathLike) -> list[str]:
    """Writes `view.pml` (PyMOL) and `view.cxc` (ChimeraX), which play the conformations found in a folder.

    Maps (`vol*.mrc`) that lie there are opened as well; write the scripts again when some have been added.

    Args:
      folder: of `pca-1.pdb` and the others.

    Returns:
      Names of the two scripts.
    """
    home = pathlib.Path(folder)
    models = [path for suffix in ("pdb", "cif") for path in home.glob(f"pca-*.{suffix}")]
    models = sorted(models, key=lambda path: (len(path.stem), path.stem))
    models += [home / f"kmeans.{suffix}" for suffix in ("pdb", "cif") if (home / f"kmeans.{suffix}").exists()]
    still = [home / f"mobility.{suffix}" for suffix in ("pdb", "cif") if (home / f"mobility.{suffix}").exists()]
    maps = sorted(home.glob("vol*.mrc"))
    pml = ["# PyMOL: open this file from its folder (`pymol view.pml`).", "# Arrow keys step, `mplay` plays."]
    cxc = ["# ChimeraX: open this file. Sliders step through conformations and maps; `coordset #1 1,N` plays."]
    pml += ["set cartoon_trace_atoms, 1", "set ribbon_trace_atoms, 1"]
    for place, path in enumerate([*models, *still]):
        name = path.stem.replace("-", "_")
        pml += [f"load {path.name}, {name}", f"hide everything, {name}", f"show cartoon, {name}"]
        pml += [f"spectrum b, blue_white_red, {name}"]
        multiple = "" if path in still else " coordset true"
        cxc += [f"open {path.name}{multiple} name {name}"]
        cxc += [f"show #{place + 1} atoms", f"color byattribute bfactor #{place + 1} palette blue:white:red"]
        if place:
            pml += [f"disable {name}"]
            cxc += [f"hide #{place + 1} models"]
    first = len(models) + len(still) + 1
    for place, path in enumerate(maps):
        name = path.stem.replace("-", "_")
        pml += [f"load {path.name}, {name}", f"isomesh {name}_mesh, {name}, 3.0", f"color grey70, {name}_mesh"]
        cxc += [f"open {path.name}", f"transparency #{first + place} 60"]
        if place:
            pml += [f"disable {name}_mesh"]
    cxc += _map_series(maps, first)
    cxc += [f"hide #{first + place} models" for place in range(1, len(maps))]
    pml += ["bg_color white"]
    cxc += ["style ball", "set bgColor white", "lighting soft"]
    if models:
        name = models[0].stem.replace("-", "_")
        pml += [f"orient {name}", f"mset 1 -{_models_in(models[0])}", "mplay"]
        cxc += ["view #1"]
        for place, path in enumerate(models):
            if path.stem.startswith("pca-") and (count := _models_in(path)) > 1:
                cxc += [f"coordset #{place + 1} 1,{count}"]
        cxc += ["coordset slider #1"]
    write_text(home / "view.pml", "\n".join(pml) + "\n")
    write_text(home / "view.cxc", "\n".join(cxc) + "\n")
    return ["view.pml", "view.cxc"]


def _map_series(maps: list[pathlib.Path], first: int) -> list[str]:
    """ChimeraX's commands for the maps along each component: one contour level, and a slider that shows one of them.

    Args:
      maps: in the order in which they are opened.
      first: number of the first one's model.
    """
    series: dict[str, list[int]] = {}
    for place, path in enumerate(maps):
        if found := re.fullmatch(r"(vol_pca_\d+)_\d+", path.stem):
            series.setdefault(found[1], []).append(first + place)
    lines = []
    for numbers in series.values():
        if len(numbers) > 1:  # of one component they are neighbours
            lines += [f"volume #{numbers[0]}-{numbers[-1]} sdLevel 3", f"mseries slider #{numbers[0]}-{numbers[-1]}"]
    return lines


def _models_in(path: pathlib.Path) -> int:
    from jaxprot.io.structures import read_structure

    return len(np.unique(read_structure(path, models="all").model))


def clear_maps(folder: str | os.PathLike) -> None:
    """Removes the maps, models and tables of an earlier `jaxprot cryostar density`, which may have been more."""
    home = pathlib.Path(folder)
    for path in home.iterdir() if home.is_dir() else ():
        if _MAPS.fullmatch(path.name):
            path.unlink()
    _clear_clusters(home)


def _clear(home: pathlib.Path) -> None:
    """Removes an earlier analysis, first the file that says that it is complete."""
    (home / _DONE).unlink(missing_ok=True)
    for path in home.iterdir():
        if _OWN.fullmatch(path.name):
            path.unlink()
    _clear_clusters(home)


def _clear_clusters(home: pathlib.Path) -> None:
    for path in (home / "clusters").glob("cluster_*.star"):
        path.unlink()
    with contextlib.suppress(OSError):  # not empty, or not there
        (home / "clusters").rmdir()
