"""Alphabets, three-letter names, and the standard parent of modified residues.

The parent table covers what is met in practice: protonation and bonding names of the force fields (AMBER, CHARMM,
GROMACS), and the modified amino acids of the wwPDB component dictionary that keep an ordinary peptide backbone.
Chromophores fused from several residues (as in GFP) and D-amino acids are left out on purpose: a one-letter parent
would claim a backbone they do not have.
"""

import numpy as np

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
"""Model alphabet of ProteinMPNN; index 20 (`X`) is unknown or gap."""

STANDARD = ALPHABET[:20]
"""The twenty standard amino acids in the order of `ALPHABET`."""

UNKNOWN = ALPHABET.index("X")

BACKBONE = ("N", "CA", "C", "O")
"""Backbone atoms in the order of every coordinate array."""

THREE_TO_ONE = {
    "ALA": "A", "CYS": "C", "ASP": "D", "GLU": "E", "PHE": "F", "GLY": "G", "HIS": "H", "ILE": "I", "LYS": "K",
    "LEU": "L", "MET": "M", "ASN": "N", "PRO": "P", "GLN": "Q", "ARG": "R", "SER": "S", "THR": "T", "VAL": "V",
    "TRP": "W", "TYR": "Y",
}  # fmt: skip

ONE_TO_THREE = {one: three for three, one in THREE_TO_ONE.items()}

_VARIANTS = {
    "ALA": "ABA AIB ALC DAB MAA ORN",
    "ARG": "AGM ARN CIR",
    "ASN": "MEN SNN",
    "ASP": "0TD ASH ASPH BFD IAS PHD",
    "CYS": "CAF CAS CME CSD CSO CSS CSX CYM CYX CYS2 CYSH OCS SCH SCY SEC SMC SNC YCM",
    "GLN": "MEQ",
    "GLU": "CGU FGA GLH GLUH PCA",
    "GLY": "GHP GL3 SAR",
    "HIS": "HIC HID HIE HIP HIN HIS1 HIS2 HISA HISB HISD HISE HISH HISP HSD HSE HSP MHS NEP",
    "LEU": "MK8 MLE NLE",
    "LYS": "ALY KCX KPI LLP LYN LYP LYSH M3L MLY MLZ PYL",
    "MET": "CXM FME MHO MSE SME",
    "PHE": "MEA PHI PHL",
    "PRO": "HYP",
    "SER": "DHA OAS SAC SEP",
    "THR": "BMT TPO",
    "TRP": "0AF TOX TRQ TRY",
    "TYR": "OMY PTR TPQ TYM TYS",
    "VAL": "FVA MVA",
}

PARENT = {name: parent for parent, names in _VARIANTS.items() for name in names.split()}
"""Modified or protonation name to the standard three-letter name it derives from."""

CAPS = frozenset({"ACE", "NME", "NMA", "NH2", "FOR", "NHE", "CH3"})
"""Terminal caps of simulation and crystal files; they are no residues of the sequence."""

WATER = frozenset({"HOH", "WAT", "DOD", "H2O", "TIP", "TIP3", "TIP4", "SOL", "SPC"})

NUCLEOTIDES = frozenset({"A", "C", "G", "U", "I", "N", "DA", "DC", "DG", "DT", "DU", "DI", "DN"})

_LETTER = THREE_TO_ONE | {name: THREE_TO_ONE[parent] for name, parent in PARENT.items()}


def parent(name: str) -> str:
    """Returns the standard three-letter name of a residue, or `UNK` where it has none."""
    letter = _LETTER.get(name.strip().upper())
    return ONE_TO_THREE[letter] if letter else "UNK"


def letter(name: str) -> str:
    """Returns the one-letter code of the parent of a residue name, `X` where unknown."""
    return _LETTER.get(name.strip().upper(), "X")


def letters(names: np.ndarray) -> np.ndarray:
    """One-letter codes of many residue names.

    Args:
      names: (R,) residue names as in the file.

    Returns:
      (R,) U1 letters of the parents, `X` where unknown.
    """
    if len(names) == 0:
        return np.zeros(0, "U1")
    unique, inverse = np.unique(names, return_inverse=True)
    return np.array([letter(str(name)) for name in unique], "U1")[inverse]


_INDEX = np.full(128, UNKNOWN, np.int32)
_INDEX[[ord(c) for c in ALPHABET]] = np.arange(len(ALPHABET))


def encode(sequence: str) -> np.ndarray:
    """Returns (L,) int32 indices into `ALPHABET`; every other character (gap included) becomes `X`."""
    codes = np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)
    return _INDEX[np.minimum(codes, 127)]


def decode(indices: np.ndarray) -> str:
    """Returns the letters of (L,) indices into `ALPHABET`."""
    return "".join(np.array(list(ALPHABET))[np.asarray(indices, int)])


ELEMENTS = (
    "X H HE LI BE B C N O F NE NA MG AL SI P S CL AR K CA SC TI V CR MN FE CO NI CU ZN GA GE AS SE BR KR RB SR Y ZR NB "
    "MO TC RU RH PD AG CD IN SN SB TE I XE CS BA LA CE PR ND PM SM EU GD TB DY HO ER TM YB LU HF TA W RE OS IR PT AU "
    "HG TL PB BI PO AT RN FR RA AC TH PA U NP PU AM CM BK CF ES FM MD NO LR RF DB SG BH HS MT DS RG CN NH FL MC LV TS "
    "OG"
).split()
"""Symbols in upper case by atomic number; `X` (0) is unknown."""

_NUMBER = {symbol: number for number, symbol in enumerate(ELEMENTS)} | {"D": 1, "T": 1}


def atomic_numbers(symbols: np.ndarray) -> np.ndarray:
    """Atomic numbers of element symbols.

    Args:
      symbols: (N,) symbols in any case.

    Returns:
      (N,) int32; 0 where the symbol is unknown or empty, 1 for deuterium.
    """
    if len(symbols) == 0:
        return np.zeros(0, np.int32)
    unique, inverse = np.unique(symbols, return_inverse=True)
    return np.array([_NUMBER.get(str(symbol).strip().upper(), 0) for symbol in unique], np.int32)[inverse]
