"""Units of proteins, and proteins that have none."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from jaxprot.ai2bmd import templates
from jaxprot.ai2bmd.fragment import fragment
from jaxprot.ai2bmd.topology import topology
from jaxprot.core.errors import InputError, JaxprotError
from jaxprot.io.structures import read_structure


@pytest.mark.golden
def test_units_of_the_published_program(published):
    stored, structure = published
    made = fragment(structure)
    np.testing.assert_array_equal(made.row_origin, stored["frag_atom_origin"])
    np.testing.assert_array_equal(made.row_sign, stored["frag_atom_sign"])
    np.testing.assert_array_equal(made.row_z, stored["frag_z"])
    np.testing.assert_array_equal(made.row_unit, stored["frag_batch"])
    np.testing.assert_array_equal(made.unit_start[:-1], stored["frag_start"])
    np.testing.assert_array_equal(made.unit_name[::2], stored["unit_name"])
    np.testing.assert_array_equal(made.excluded_pairs(), stored["exclude_pairs"])
    np.testing.assert_array_equal(made.z, stored["z"])


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "units", "charge"), [("chig", 19, -2), ("trpcage", 39, -1), ("ww", 69, 3), ("abd", 93, -1)]
)
def test_proteins_of_the_paper(shared, name, units, charge):
    made = fragment(read_structure(shared / "data" / "proteins" / f"{name}.pdb"))
    assert (made.n_units, made.total_charge, made.unit_charge.sum()) == (units, charge, charge)


def test_every_atom_counts_once(trpcage, two_chains):
    for structure in (trpcage, two_chains):
        made = fragment(structure)
        # Dipeptides less ACE-NMEs hold every atom exactly once, and no cap.
        count = np.bincount(made.row_source, made.row_sign, made.n_atoms + len(made.cap_parent))
        np.testing.assert_array_equal(count, np.arange(len(count)) < made.n_atoms)
        assert made.unit_charge[made.unit_sign > 0].sum() == made.total_charge
        real = made.row_source < made.n_atoms
        np.testing.assert_array_equal(made.row_z[real], made.z[made.row_source[real]])
        assert (made.row_z[~real] == 1).all()


def test_excluded_are_atoms_that_share_a_dipeptide(two_chains):
    made = fragment(two_chains)
    together = np.zeros((made.n_atoms, made.n_atoms), bool)
    for unit in np.flatnonzero(made.unit_sign > 0):
        origin = made.row_origin[made.row_unit == unit]
        origin = origin[origin >= 0]
        together[np.ix_(origin, origin)] = True
    i, j = np.triu_indices(made.n_atoms, 1)
    np.testing.assert_array_equal(made.excluded_pairs(), np.stack([i, j], 1)[together[i, j]])


def test_order_of_atoms_in_the_file_does_not_matter(chignolin, edit):
    mixed, order = edit.permuted(chignolin)
    one, two = fragment(chignolin), fragment(mixed)
    assert (order != np.arange(len(order))).any()
    real = one.row_origin >= 0
    np.testing.assert_array_equal(one.row_origin[real], order[two.row_origin[real]])
    np.testing.assert_array_equal(one.cap_parent, order[two.cap_parent])
    np.testing.assert_array_equal(one.charge[order], two.charge)
    np.testing.assert_array_equal(one.row_z, two.row_z)


def test_a_bridge_between_chains_is_one_unit(two_chains):
    made = fragment(two_chains)
    (bridge,) = np.flatnonzero(made.unit_name == "CYX")
    assert np.diff(made.unit_start)[bridge] == 44 and made.unit_sign[bridge] == 1 and made.unit_charge[bridge] == 0
    assert bridge == 0 and "chain A residue CYS 2 - chain B residue CYS 2" == made.unit_label[bridge]
    assert made.n_units == 2 * 19 - 1 and (made.unit_name == "ACENME").sum() == 18
    rows = slice(*made.unit_start[bridge : bridge + 2])
    np.testing.assert_array_equal(made.row_z[rows], templates.units()["CYX"].z)
    sulphurs = made.row_source[rows][[13, 35]]
    np.testing.assert_array_equal(two_chains.atom_name[sulphurs], ["SG", "SG"])
    # ACE-NMEs are cut from the half that they belong to.
    first, second = made.row_source[made.row_unit == 1], made.row_source[made.row_unit == 19]
    half = made.row_source[rows]
    np.testing.assert_array_equal(first[6:], half[16:22])
    np.testing.assert_array_equal(second[6:], half[38:])
    assert (made.atom_units[sulphurs] == [0, -1, -1]).all()


def test_a_bridge_across_a_hairpin(chignolin, edit):
    made = fragment(edit.bridged(chignolin, 2, 9))
    assert made.unit_name[2] == "CYX" and made.n_units == 18


NEAR = {
    (5, 6): 2,
    (3, 5): 3,
    (3, 6): 4,
    (6, 9): 4,
    (3, 7): 5,
    (5, 9): 5,
}  # rows of TRP-cage, and residues of the stretch


@pytest.mark.parametrize("rows", NEAR, ids=str)
def test_near_cysteines_are_one_unit_with_what_is_between(trpcage, edit, rows):
    structure = edit.bridged(trpcage, *rows)
    made = fragment(structure)
    counts = net_counts(made)
    assert set(np.unique(counts)) == {0, 1} and (np.diag(counts) == 1).all()
    (unit,) = np.flatnonzero(np.char.count(made.unit_name, "CYX") > 0)
    name = str(made.unit_name[unit])
    assert name.count("-") == NEAR[rows] - 1 and name.startswith("CYX") and name.endswith("CYX")
    assert made.n_units == 39 - 2 * (NEAR[rows] - 1)
    number = structure.resid[list(rows)]
    assert made.unit_label[unit].endswith(f"residue CYS {number[1]}")
    assert f"residue CYS {number[0]} to " in made.unit_label[unit]
    held = made.row_origin[made.row_unit == unit]
    inner = np.flatnonzero((structure.atom_residue >= rows[0]) & (structure.atom_residue <= rows[1]))
    assert set(inner) <= set(held) and len(held) == len(set(held) - {-1}) + (held == -1).sum()
    together = {tuple(pair) for pair in made.excluded_pairs().tolist()}
    assert {(i, j) for i, j in zip(*np.triu_indices_from(counts, 1), strict=True) if counts[i, j]} == together
    assert made.unit_charge[made.unit_sign > 0].sum() == made.total_charge


def net_counts(made):
    """(n, n) how often the units count each pair of atoms."""
    holds = np.zeros((made.n_units, made.n_atoms), int)
    real = made.row_origin >= 0
    np.add.at(holds, (made.row_unit[real], made.row_origin[real]), 1)
    return holds.T @ (made.unit_sign[:, None] * holds)


def test_far_bridges_and_those_of_several_chains_count_every_pair_once(trpcage, two_chains, chignolin, edit):
    for structure in (two_chains, edit.bridged(chignolin, 2, 9), edit.bridged(chignolin, 1, 10)):
        made = fragment(structure)
        assert "CYX" in made.unit_name and set(np.unique(net_counts(made))) == {0, 1}
    # One end of the far bridge lies within the stretch of the near one; two stretches of near bridges overlap.
    for one, two, name in (
        ((3, 7), (6, 16), "CYX-ALA-GLN-CYX-CYX+CYX"),
        ((3, 6), (5, 9), "CYX-ALA-CYX-CYX-LEU-ALA-CYX"),
    ):
        made = fragment(edit.bridged(edit.bridged(trpcage, *one), *two))
        assert name in made.unit_name and set(np.unique(net_counts(made))) == {0, 1}


def test_units_of_stretches_have_the_terms_of_those_of_their_residues():
    bridge, half = templates.units()["CYX"], templates._stretch(("CYX",))
    two = templates.stretches((("CYX", "CYX"), ("CYX",)))
    assert half.atoms == bridge.atoms[:22] and two.name == "CYX-CYX+CYX" and len(two.z) == 32 + 22
    ends = np.r_[0:6, 16:22]
    for kind, values in templates._TERMS.items():
        for unit, rows, start in ((half, ends, 0), (two, ends + 32, 32), (two, np.r_[0:6, 26:32], 0)):
            chosen = np.isin(getattr(unit, kind), rows).any(1)
            own = np.isin(getattr(bridge, kind), ends).any(1) & (getattr(bridge, kind) < 22).all(1)
            move = np.where(np.arange(44) < 16, np.arange(44), np.arange(44) + rows[-1] - start - 21) + start
            if unit is two and start == 0:  # its two ends are of different residues
                first = (getattr(bridge, kind) < 16).all(1)
                own, chosen = own & first, np.isin(getattr(unit, kind), rows[:6]).any(1)
            np.testing.assert_array_equal(getattr(unit, kind)[chosen], move[getattr(bridge, kind)[own]])
            for value in values:
                np.testing.assert_array_equal(getattr(unit, value)[chosen], getattr(bridge, value)[own])
    caps = np.array([0, 2, 3])
    np.testing.assert_array_equal(two.near[caps][:, :16], bridge.near[caps][:, :16])
    assert not two.near[caps][:, 16:].any()
    np.testing.assert_array_equal(two.near[caps + 32][:, 32:], bridge.near[caps][:, :22])
    assert two.charge.sum() == pytest.approx(0, abs=1e-9) and two.near[16 - 2, 16]  # a peptide bond between


def test_one_residue_is_one_unit_of_all_atoms(chignolin, edit):
    short = edit.chopped(chignolin, 2, 10)
    move = edit.atom(short, 11, "N")
    step = short.xyz[move] - short.xyz[edit.atom(short, 1, "C")]
    cap = short.resid[short.atom_residue] == 1
    short = edit.replace(short, "xyz", cap, short.xyz[cap] + step * (1 - 1.4 / np.linalg.norm(step)))
    made = fragment(short)
    assert made.n_units == 1 and len(made.cap_parent) == 0
    np.testing.assert_array_equal(np.sort(made.row_source), np.arange(short.n_atoms))


CARBONS = {"OD1": "CG", "OD2": "CG", "OE1": "CD"}


def test_hydrogens_tell_the_form_of_an_acid(chignolin, edit):
    for resid, oxygen, hydrogen, name in ((4, "OD2", "HD2", "ASH"), (4, "OD1", "HD1", "ASH"), (6, "OE1", "HE1", "GLH")):
        carbon, at = (chignolin.xyz[edit.atom(chignolin, resid, atom)] for atom in (CARBONS[oxygen], oxygen))
        place = at + 0.97 * (at - carbon) / np.linalg.norm(at - carbon)
        changed = edit.insert(chignolin, resid, hydrogen, "H", place)
        top = topology(changed)
        row = resid - 1
        assert top.names[row] == name
        template = templates.residues()[name]
        i, j = top.atoms[row][template.bonds[template.bonds.max(1).argsort()]].T
        assert np.linalg.norm(changed.xyz[i] - changed.xyz[j], axis=1).max() < 1.8
        assert fragment(changed).total_charge == -1


def test_hydrogens_tell_the_form_of_histidine(shared, edit):
    protein = read_structure(shared / "data" / "proteins" / "ww.pdb")
    (row,) = np.flatnonzero(protein.res_name == "HIE")
    resid = protein.resid[row]
    protein = edit.renamed(protein, resid, "HIS")
    on_delta = protein.xyz[edit.atom(protein, resid, "ND1")] + [0, 0, 1.0]
    both = edit.insert(protein, resid, "HD1", "H", on_delta)
    delta = edit.without(both, edit.atom(both, resid, "HE2"))
    none = edit.without(protein, edit.atom(protein, resid, "HE2"))
    for form, changed in (("HIE", protein), ("HIP", both), ("HID", delta)):
        assert topology(changed).names[row] == form
    with pytest.raises(InputError, match=f"residue HIS {resid} atom HD1 or HE2: this hydrogen is missing; add"):
        topology(none)
    with pytest.raises(InputError, match="its hydrogens are those of HID; name it HID"):
        topology(edit.renamed(delta, resid, "HIE"))
    assert topology(edit.renamed(delta, resid, "HSD")).names[row] == "HID"


def test_hydrogens_tell_the_form_of_lysine(trpcage, shared, edit):
    protein = read_structure(shared / "data" / "proteins" / "ww.pdb")
    row = np.flatnonzero(protein.res_name == "LYS")[0]
    neutral = edit.without(protein, edit.atom(protein, protein.resid[row], "HZ1"))
    assert topology(neutral).names[row] == "LYN" and topology(protein).names[row] == "LYS"


NAMES = {
    "old PDB": ("LYS", "N H CA HA CB 1HB 2HB CG 1HG 2HG CD 1HD 2HD CE 1HE 2HE NZ 1HZ 2HZ 3HZ C O"),
    "old PDB with numbers": ("LEU", "N H CA HA CB 1HB 2HB CG HG CD1 1HD1 2HD1 3HD1 CD2 1HD2 2HD2 3HD2 C O"),
    "CHARMM isoleucine": ("ILE", "N HN CA HA CB HB CG1 HG11 HG12 CG2 HG21 HG22 HG23 CD HD1 HD2 HD3 C O"),
    "CHARMM serine": ("SER", "N HN CA HA CB HB1 HB2 OG HG1 C O"),
    "CHARMM threonine": ("THR", "N HN CA HA CB HB OG1 HG1 CG2 HG21 HG22 HG23 C O"),
    "CHARMM glycine": ("GLY", "N HN CA HA1 HA2 C O"),
    "PDB cap": ("NME", "N H C H1 H2 H3"),
    "AMBER cap": ("ACE", "HH31 CH3 HH32 HH33 C O"),
    "AMBER methyl": ("NME", "N H CH3 HH31 HH32 HH33"),
    "neutral lysine of CHARMM": (
        "LYN",
        "N H CA HA CB HB1 HB2 CG HG1 HG2 CD HD1 HD2 CE HE1 HE2 NZ HZ1 HZ2 C O",
    ),
}


@pytest.mark.parametrize("which", NAMES)
def test_names_of_other_programs(which):
    variant, names = NAMES[which]
    names = names.split()[::-1]
    found, missing, extra = templates.match(variant, names)
    assert not missing and not extra and sorted(found.values()) == list(range(len(names)))
    template = templates.residues()[variant]
    assert all(name[0] == names[found[name]].lstrip("123")[0] for name in template.atoms)


def test_each_hydrogen_finds_the_carbon_it_names():
    found, missing, extra = templates.match("ILE", NAMES["CHARMM isoleucine"][1].split())
    given = NAMES["CHARMM isoleucine"][1].split()
    assert [given[found[name]] for name in ("HG12", "HG13", "HG21", "CD1", "HD11", "HD13")] == [
        "HG11", "HG12", "HG21", "CD", "HD1", "HD3",
    ]  # fmt: skip
    assert not missing and not extra


def test_names_of_every_residue_are_their_own():
    for name, template in templates.residues().items():
        found, missing, extra = templates.match(name, template.atoms[::-1])
        assert not missing and not extra
        assert [template.atoms[::-1][found[atom]] for atom in template.atoms] == list(template.atoms)


def missing_hydrogen(s, edit):
    return edit.without(s, edit.atom(s, 3, "HB2"))


def missing_atom(s, edit):
    return edit.without(s, edit.atom(s, 10, "CZ2"))


def no_start(s, edit):
    return edit.chopped(s, 1, 1)


def no_end(s, edit):
    return edit.chopped(s, 12, 12)


def charged_end(s, edit):
    s = edit.chopped(s, 12, 12)
    return edit.insert(s, 11, "OXT", "O", s.xyz[edit.atom(s, 11, "C")] + [0, 0, 1.3])


def gap(s, edit):
    return edit.chopped(s, 5, 6)


def unknown(s, edit):
    return edit.renamed(s, 4, "XYZ")


def modified(s, edit):
    return edit.renamed(s, 4, "MSE")


def overlap(s, edit):
    return edit.replace(s, "xyz", edit.atom(s, 2, "HH"), s.xyz[edit.atom(s, 9, "HB")] + [0.1, 0, 0])


def element(s, edit):
    return edit.replace(s, "element", edit.atom(s, 4, "CG"), "O")


def other(name, atoms, hetero=True):
    """Adds a residue of some atoms, far away, in a chain of its own."""

    def change(s, edit):
        piece = s.select(np.arange(s.n_atoms) < atoms)
        piece = dataclasses.replace(
            piece, xyz=piece.xyz + 50, res_name=np.array([name], "U5"), hetero=np.array([hetero]), resid=np.array([77])
        )
        return edit.joined(s, piece)

    return change


def two_places(s, edit):
    return edit.insert(s, 4, "CG", "C", [0, 0, 0], altloc="B")


def twice(s, edit):
    return edit.insert(s, 4, "CG", "C", [0, 0, 0])


def no_number(s, edit):
    return edit.replace(s, "xyz", edit.atom(s, 7, "CG2"), np.nan)


def empty_chain(s, edit):
    return edit.chopped(s, 2, 11)


def broken_bond(s, edit):
    return edit.replace(s, "xyz", edit.atom(s, 7, "HG1"), s.xyz[edit.atom(s, 7, "HG1")] + [0, 0, 9])


def open_bridge(s, edit):
    s = edit.bridged(s, 2, 9)
    sulphur = edit.atom(s, 3, "SG")
    away = s.xyz[edit.atom(s, 3, "CB")] * 2 - s.xyz[sulphur]
    return edit.replace(s, "xyz", sulphur, away)


def neighbouring_bridges(s, edit):
    return edit.bridged(edit.bridged(s, 1, 10), 2, 9)


def strange_atom(s, edit):
    return edit.insert(s, 4, "QX", "C", [30, 30, 30])


def two_models(s, edit):
    return edit.replace(s, "model", np.arange(s.n_atoms) > 100, 2)


def no_atoms(s, edit):
    return s.select(np.zeros(s.n_atoms, bool))


REFUSALS = {
    missing_hydrogen: "residue TYR 3 atom HB2: this hydrogen is missing; add it with",
    missing_atom: "residue TRP 10 atom CZ2: this atom is missing; add it with",
    no_start: "residue TYR 2: the chain does not start with ACE here; cap it",
    no_end: "residue TYR 11: the chain does not end with NME here; cap it",
    charged_end: "residue TYR 11 atom OXT: TYR has no such atom; the chain end is charged; cap it instead",
    gap: r"residue ASP 4 and .*residue THR 7: chain break, C and N are [0-9.]+ Å apart; model",
    unknown: "residue XYZ 4: an unknown residue; known are ACE, ALA",
    modified: "residue MSE 4: a modified or unsupported form of MET; replace it",
    overlap: r"residue TYR 2 atom HH and .*residue THR 9 atom HB: 0.10 Å apart; minimise",
    element: "residue ASP 4 atom CG: element O in the file, but the name stands for C; correct",
    other("HOH", 3): r"chain B residue HOH 77: 1 water\(s\); remove them",
    other("LIG", 5): "chain B residue LIG 77: a ligand cannot be fragmented; remove it",
    other("ZN", 1): "chain B residue ZN 77: an ion cannot be part of a fragment; remove it",
    two_places: "residue ASP 4 atom CG: alternate locations B; keep one of them",
    twice: "residue ASP 4 atom CG: 2 atoms of this name",
    no_number: "residue THR 7 atom CG2: its coordinates are no numbers",
    empty_chain: "residue NME 12: the chain is too short, no residue stands between its caps",
    broken_bond: r"residue THR 7 atom (HG1|OG1): [0-9.]+ Å from (HG1|OG1), to which it is bonded",
    open_bridge: "residue CYS 3 atom SG: no hydrogen HG and no other such sulphur",
    neighbouring_bridges: "residue CYS 2 - .*residue CYS 11 and .*residue CYS 3 - .*residue CYS 10: disulfides",
    strange_atom: "residue ASP 4 atom QX: ASP has no such atom; remove it",
    two_models: "2 models; choose one of them",
    no_atoms: "no atoms; give a protein",
}


@pytest.mark.parametrize(
    ("change", "message"), REFUSALS.items(), ids=[f"{i}-{change.__name__}" for i, change in enumerate(REFUSALS)]
)
def test_refused_before_anything_is_computed(chignolin, edit, change, message):
    with pytest.raises(JaxprotError, match=message) as caught:
        fragment(change(chignolin, edit))
    assert str(caught.value).startswith(("chignolin: ", "joined: ")) and isinstance(caught.value, InputError)


def test_a_file_without_elements_is_fine(chignolin):
    bare = dataclasses.replace(chignolin, element=np.full(chignolin.n_atoms, "X", "U2"))
    np.testing.assert_array_equal(fragment(bare).z, fragment(chignolin).z)


def test_all_problems_are_told_at_once(chignolin, edit):
    with pytest.raises(InputError) as caught:
        fragment(missing_hydrogen(missing_atom(chignolin, edit), edit))
    text = str(caught.value)
    assert text.startswith("chignolin: 2 problems\n  ") and "TYR 3 atom HB2" in text and "TRP 10 atom CZ2" in text


def test_missing_hydrogens_are_one_line(chignolin):
    with pytest.raises(InputError) as caught:
        fragment(chignolin.select(chignolin.element != "H"))
    assert str(caught.value) == (
        "chignolin: 78 hydrogens are missing: residue ACE 1 (H1, H2, H3), residue TYR 2 (H, HA, HB2, HB3 and 5 more), "
        "residue TYR 3 (H, HA, HB2, HB3 and 5 more) and 9 more residues; add them with `jaxprot ai2bmd prepare` or "
        "another program that adds hydrogens and side chains"
    )


def test_missing_side_chains_are_one_line_beside_it(chignolin):
    ring = np.isin(chignolin.atom_name, ["CZ", "HZ", "OH", "HH"])
    with pytest.raises(InputError) as caught:
        fragment(chignolin.select(~ring))
    lines = str(caught.value).splitlines()
    assert lines[0] == "chignolin: 2 problems" and len(lines) == 3
    assert "hydrogens are missing: residue TYR 2 (HH)" in lines[1]
    assert "atoms are missing: residue TYR 2 (CZ, OH)" in lines[2]


def test_a_raw_crystal_structure_is_refused_with_a_remedy(example):
    with pytest.raises(InputError, match="jaxprot ai2bmd prepare"):
        fragment(read_structure(example("ubiquitin")))


def test_bonds_join_chains_at_a_bridge_alone(chignolin, two_chains):
    one, two = fragment(chignolin), fragment(two_chains)
    assert len(one.covalent) == one.n_atoms - 1 + 6  # a tree, and six rings: of three TYR, PRO and TRP
    assert len(two.covalent) == two.n_atoms - 1 + 10  # one TYR of each chain is a cysteine here
    assert (two.z[two.covalent] == 16).all(1).sum() == 1
    graph = coo_matrix((np.ones(len(two.covalent)), two.covalent.T), (two.n_atoms, two.n_atoms))
    assert connected_components(graph, directed=False)[0] == 1


def test_description_is_plain_json(two_chains):
    made = fragment(two_chains)
    told = json.loads(json.dumps(made.describe()))
    assert told["n_atoms"] == made.n_atoms and told["n_caps"] == len(made.cap_parent) and len(told["units"]) == 37
    assert sum(unit["sign"] * len(unit["atoms"]) for unit in told["units"]) == made.n_atoms
    assert told["units"][2]["name"] == "TYR" and told["units"][2]["caps"][0]["length_angstrom"] == 1.07
    assert sum(len(unit["caps"]) for unit in told["units"] if unit["sign"] > 0) == told["n_caps"]
    assert "37 units" in repr(made) and "charge -4" in repr(made)
