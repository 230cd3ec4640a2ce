"""Files for molecular viewers: a model whose B-factors carry a result, and scripts that colour by it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.io.outputs import write_text

if TYPE_CHECKING:
    from jaxprot.core.structure import Structure


def write_bfactor_model(structure: "Structure", values: np.ndarray, path: str | os.PathLike) -> None:
    """Writes a structure with `values` in place of its B-factors.

    Args:
      structure: what to write.
      values: one per atom (N,) or per residue (R,); NaN becomes 0, and numbers are kept in the column's range
        (-99.99 to 999.99).
      path: `.pdb` or `.cif`, also with `.gz`.

    Raises:
      InputError: neither one value per atom nor per residue.
      OutputError: the file cannot be written.
    """
    from jaxprot.io.structures import write_structure

    values = np.asarray(values, np.float32)
    if values.shape not in ((structure.n_atoms,), (structure.n_residues,)):
        raise InputError(
            f"{path}: {values.shape} values for {structure.n_atoms} atoms and {structure.n_residues} residues"
        )
    values = np.clip(np.nan_to_num(values, nan=0.0, posinf=999.99, neginf=-99.99), -99.99, 999.99)
    write_structure(structure.with_bfactor(values), path, fit=True)


def write_view_scripts(
    directory: str | os.PathLike,
    model_file: str,
    lo: float,
    hi: float,
    label: str = "value",
    unscored: float | None = None,
) -> tuple[Path, Path]:
    """Writes `view.pml` (PyMOL) and `view.cxc` (ChimeraX), which colour a model by its B-factors from blue to red.

    Args:
      directory: folder of the scripts and of the model.
      model_file: name of the model in that folder.
      lo: value shown in blue.
      hi: value shown in red; white is half way.
      label: what the colours mean, with its unit.
      unscored: atoms with B-factors below this have no value, and are grey.

    Returns:
      Paths of the two scripts.
    """
    if not np.isfinite([lo, hi]).all() or lo >= hi:
        centre = float(np.nan_to_num(lo))
        lo, hi = centre - 1.0, centre + 1.0
    middle = (lo + hi) / 2
    name = Path(model_file).name.partition(".")[0]
    grey = "" if unscored is None else f"color grey70, {name} and b < {unscored:.4g}\n"
    gray = "" if unscored is None else f"color @@bfactor<{unscored:.4g} gray\n"
    pml = f"""# PyMOL: open this file from its folder (`pymol view.pml`).
# Colours: {label}, {lo:.4g} blue to {hi:.4g} red.
load {model_file}, {name}
hide everything, {name}
show cartoon, {name}
show sticks, {name} and hetatm and not solvent
spectrum b, blue_white_red, {name}, minimum={lo:.4g}, maximum={hi:.4g}
{grey}ramp_new {name}_scale, none, [{lo:.4g}, {middle:.4g}, {hi:.4g}], [blue, white, red]
set cartoon_fancy_helices, 1
bg_color white
orient {name}
"""
    cxc = f"""# ChimeraX: open this file.
# Colours: {label}, {lo:.4g} blue to {hi:.4g} red.
open {model_file}
hide atoms
show cartoons
color byattribute bfactor palette {lo:.4g},blue:{middle:.4g},white:{hi:.4g},red
{gray}key blue:{lo:.4g} white:{middle:.4g} red:{hi:.4g} pos 0.35,0.05 size 0.3,0.03
2dlabels text "{label.replace('"', "'")}" xpos 0.35 ypos 0.11 size 18
set bgColor white
lighting soft
view
"""
    directory = Path(directory)
    paths = directory / "view.pml", directory / "view.cxc"
    for path, text in zip(paths, (pml, cxc), strict=True):
        write_text(path, text)
    return paths
