# PyMOL: open this file from its folder (`pymol view.pml`).
# Colours: mean ddG of the 19 substitutions, kcal/mol, -2.678 blue to 2.678 red.
load ddg.pdb, ddg
hide everything, ddg
show cartoon, ddg
show sticks, ddg and hetatm and not solvent
spectrum b, blue_white_red, ddg, minimum=-2.678, maximum=2.678
ramp_new ddg_scale, none, [-2.678, 0, 2.678], [blue, white, red]
set cartoon_fancy_helices, 1
bg_color white
orient ddg
