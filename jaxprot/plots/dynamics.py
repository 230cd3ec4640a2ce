"""Pictures of a simulation: energies over time, backbone torsions."""

import os
from collections.abc import Mapping

import numpy as np


def energy_trace(table: Mapping[str, np.ndarray], path: str | os.PathLike, title: str = "") -> None:
    """Draws energies and temperature over time.

    Args:
      table: columns of `energies.csv`; of several replicas each is a line.
      path: picture to write; the suffix decides the kind.
      title: text above.

    Raises:
      ValueError: no rows.
      OSError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    time = np.asarray(table["time_ps"], float)
    if not len(time):
        raise ValueError("no rows of energies to draw")
    replica = np.asarray(table["replica"], int) if "replica" in table else np.zeros(len(time), int)
    panels = [("potential_ev", "potential (eV)"), ("total_ev", "potential + kinetic (eV)"),
              ("temperature_kelvin", "temperature (K)")]  # fmt: skip
    figure = Figure(figsize=(7, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, sharex=True)
    for axes, (name, label) in zip(grid, panels, strict=True):
        for number in np.unique(replica):
            rows = replica == number
            axes.plot(time[rows], np.asarray(table[name], float)[rows], linewidth=0.9, label=f"replica {number}")
        if time.min() < 0 < time.max():
            axes.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_ylabel(label)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.spines[["top", "right"]].set_visible(False)
    if replica.max() > 0:
        grid[0].legend(fontsize=7, ncols=4, frameon=False)
    grid[-1].set_xlabel("time (ps)")
    if title:
        figure.suptitle(title)
    figure.savefig(path)


def ramachandran(phi: np.ndarray, psi: np.ndarray, path: str | os.PathLike, title: str = "") -> None:
    """Draws backbone torsions of all residues and frames as a density.

    Args:
      phi: degrees, any shape.
      psi: degrees, the same shape.
      path: picture to write; the suffix decides the kind.
      title: text above.

    Raises:
      ValueError: no torsions.
      OSError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    phi, psi = np.ravel(phi), np.ravel(psi)
    if not len(phi):
        raise ValueError("no residue with both torsions")
    figure = Figure(figsize=(4.8, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    edges = np.linspace(-180, 180, 73)
    counts, _, _ = np.histogram2d(phi, psi, bins=(edges, edges))
    most = max(counts.max(), 2)
    drawn = axes.pcolormesh(edges, edges, np.where(counts > 0, counts, np.nan).T, norm=LogNorm(1, most), cmap="viridis")
    ticks = [factor * 10**power for power in range(9) for factor in ((1,) if most > 500 else (1, 2, 5))]
    bar = figure.colorbar(drawn, label="residues and frames", ticks=[tick for tick in ticks if tick <= most])
    bar.formatter = "{:.0f}".format  # counts, not powers
    bar.minorticks_off()
    axes.set(xlabel="φ (degrees)", ylabel="ψ (degrees)", xlim=(-180, 180), ylim=(-180, 180), aspect="equal")
    axes.set_xticks(range(-180, 181, 60))
    axes.set_yticks(range(-180, 181, 60))
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    if title:
        axes.set_title(title)
    figure.savefig(path)
