"""Constants of molecular mechanics and dynamics, with their sources.

Systems of dynamics work in Å, eV, eV/Å, u and Å·sqrt(u/eV); force fields come in kcal/mol or kJ/mol.
Exact SI values (2019): h, e, N_A, k_B. Others: CODATA 2018.
"""

BOLTZMANN_EV = 8.617333262145179e-5
"""eV/K, exact k_B / e."""

KJ_MOL = 1000 / (1.602176634e-19 * 6.02214076e23)
"""1 kJ/mol in eV: 0.010364269656..., exact."""

KCAL_MOL = 4.184 * KJ_MOL
"""1 kcal/mol (thermochemical) in eV: 0.0433641..."""

HARTREE_EV = 27.211386245988
"""Hartree in eV."""

BOHR_ANGSTROM = 0.529177210903
"""Bohr radius in Å."""

COULOMB_KJ = 1389.3545751728745
"""Energy of two elementary charges at 1 Å in kJ/mol, the value of the published fragment force field."""

COULOMB_EV = COULOMB_KJ * KJ_MOL
"""The same in eV: 14.39964..."""

COULOMB_AMBER_KCAL = 18.2223**2
"""The same in kcal/mol as AMBER rounds it."""

FEMTOSECOND = 0.09822694788464063
"""1 fs in Å·sqrt(u/eV), the unit of time in which energies are eV and masses u."""
