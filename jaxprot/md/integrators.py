"""Motion of atoms under given forces: ensembles of jax-md, many steps in one program.

Units: Å, eV, eV/Å, u; times at the edges in femtoseconds. The state is float64, whatever the forces are computed in;
`wide()` switches float64 on for a block of code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.core.units import BOLTZMANN_EV, FEMTOSECOND

Ensemble = Literal["langevin", "nve", "nose-hoover"]
Field = Callable[[Any, Float[Array, "n 3"]], tuple[dict[str, Float[Array, ""]], Float[Array, "n 3"]]]
"""field(leaves, positions) -> (terms of the energy in eV by name, forces in eV/Å)."""


def wide() -> Any:
    """A context in which arrays may be float64; all functions here are called within one."""
    return jax.enable_x64(True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamics:
    """How atoms move.

    Attributes:
      ensemble: `langevin` (BAOAB; constant temperature), `nose-hoover` (chains of five; constant temperature,
        deterministic) or `nve` (constant energy; BAOAB without friction, which is velocity Verlet).
      temperature: K; of the first velocities, and kept but in `nve`.
      timestep: fs. Bonds with hydrogen are flexible, so 1 fs is much, and 0.5 fs is what conserves energy.
      friction: 1/ps, of `langevin`.
      relaxation: fs, time of the first thermostat of `nose-hoover`.
    """

    ensemble: Ensemble = "langevin"
    temperature: float = 300.0
    timestep: float = 1.0
    friction: float = 1.0
    relaxation: float = 100.0

    def __post_init__(self):
        if self.ensemble not in ("langevin", "nve", "nose-hoover"):
            raise ValueError(f"ensemble must be langevin, nve or nose-hoover, got {self.ensemble!r}")
        for name in ("temperature", "timestep", "relaxation", "friction"):
            value = getattr(self, name)
            if not (np.isfinite(value) and (value > 0 or (name == "friction" and value == 0))):
                least = "at least 0" if name == "friction" else "above 0"
                raise ValueError(f"{name} must be {least} and finite, got {value:g}")


class Restraint(NamedTuple):
    """Springs of atoms to places: energy ½ k r² for each atom.

    Attributes:
      k: eV/Å² of each atom, 0 for none.
      places: Å; of each replica.
    """

    k: Float[Array, "n"]
    places: Float[Array, "*r n 3"]


class State(NamedTuple):
    """Of one molecule, or of replicas on a leading axis.

    Attributes:
      integrator: jax-md's.
      step: steps done.
    """

    integrator: Any
    step: Int[Array, ""]


class Observed(NamedTuple):
    """What is recorded of a state.

    Attributes:
      terms: energies in eV by name; `restraint` among them.
      kinetic: eV. With `langevin` that of the next half-step: in a spring of angular frequency w momenta at the end
        of a step are too slow by (w dt)² / 4 in their squares, those between two half-steps of positions are not
        (Zhang et al., J. Phys. Chem. A 2019, doi 10.1021/acs.jpca.9b02771).
      temperature: K, of the kinetic energy.
      positions: Å.
      forces: eV/Å, restraints included.
    """

    terms: dict[str, Float[Array, ""]]
    kinetic: Float[Array, ""]
    temperature: Float[Array, ""]
    positions: Float[Array, "n 3"]
    forces: Float[Array, "n 3"]


class Integrator:
    """Steps of one ensemble under one field of forces; for one molecule or replicas of it.

    Args:
      field: energies and forces.
      masses: (n,) u.
      dynamics: how atoms move.
      replicas: number of molecules that move side by side; None for one without a leading axis.
    """

    def __init__(self, field: Field, masses: np.ndarray, dynamics: Dynamics, replicas: int | None = None):
        from jax_md import simulate

        self.field, self.dynamics, self.replicas = field, dynamics, replicas
        self.masses = np.asarray(masses, np.float64)
        self._init, _ = self._made(simulate, lambda positions, **_: jnp.zeros_like(positions), dynamics.friction, 1.0)
        self._step = lambda *arguments: self._made(simulate, *arguments)[1]
        run = self._run if replicas is None else jax.vmap(self._run, in_axes=(0, None, Restraint(None, 0), None, None))
        self._steps = jax.jit(run, donate_argnums=0)

    def _made(self, simulate: Any, forces: Any, friction: Any, dt: Any) -> Any:
        cfg, kT = self.dynamics, BOLTZMANN_EV * self.dynamics.temperature

        def shift(positions: Array, change: Array, **_: Any) -> Array:
            return positions + change

        if cfg.ensemble != "nose-hoover":  # nve has a friction before its production, and is the same program
            gamma = friction / (1000 * FEMTOSECOND)
            init, apply = simulate.nvt_langevin(forces, shift, dt, kT, gamma, center_velocity=False)
        else:
            # jax-md gives every coordinate its kT / 2, the three of the centre of mass as well, which stays at rest.
            kT *= self.freedom / (3 * len(self.masses))
            init, apply = simulate.nvt_nose_hoover(forces, shift, dt, kT, tau=cfg.relaxation * FEMTOSECOND)
        return lambda key, positions, mass: init(key, positions, mass=mass), apply

    @property
    def freedom(self) -> int:
        """Degrees of freedom that share the kinetic energy: without noise the centre of mass stays at rest."""
        return 3 * len(self.masses) - (0 if self.dynamics.ensemble == "langevin" else 3)

    def start(self, positions: Float[Array, "*r n 3"], key: PRNGKeyArray) -> State:
        """Velocities of the temperature, with the centre of mass at rest.

        Args:
          positions: Å; with replicas, one for all or one for each.
          key: of velocities and noise.
        """

        def one(positions: Array, key: PRNGKeyArray) -> State:
            state = self._init(key, positions, jnp.asarray(self.masses))
            return State(state, jnp.zeros((), jnp.int64))

        positions = jnp.asarray(positions, jnp.float64)
        if self.replicas is None:
            return one(positions, key)
        positions = jnp.broadcast_to(positions, (self.replicas, *positions.shape[-2:]))
        return jax.vmap(one)(positions, jax.random.split(key, self.replicas))

    def run(
        self,
        state: State,
        leaves: Any,
        steps: int,
        restraint: Restraint | None = None,
        friction: float | None = None,
    ) -> tuple[State, Observed]:
        """So many steps in one program, which is the same for any number of them; the state given is used up.

        Args:
          state: from `start` or `run`.
          leaves: of the field.
          steps: 0 only looks (and computes the forces, which `start` does not).
          restraint: springs.
          friction: 1/ps, instead of that of the dynamics, which is 0 in `nve`; `nose-hoover` has none.
        """
        if friction is None:
            friction = self.dynamics.friction if self.dynamics.ensemble == "langevin" else 0.0
        if restraint is None:
            restraint = Restraint(np.zeros(len(self.masses)), np.zeros(state.integrator.position.shape))
        return self._steps(state, leaves, restraint, jnp.asarray(steps, jnp.int64), jnp.asarray(friction, jnp.float64))

    def still(self, state: State) -> State:
        """The state with its centre of mass at rest, where nothing moves it; springs to places or noise may have."""
        if self.dynamics.ensemble == "langevin":
            return state
        momentum, mass = np.asarray(state.integrator.momentum), self.masses[:, None]
        drift = momentum.sum(-2, keepdims=True) / mass.sum()
        return state._replace(integrator=state.integrator.set(momentum=jnp.asarray(momentum - mass * drift)))

    def _looked(self, positions: Array, leaves: Any, restraint: Restraint) -> tuple[dict[str, Array], Array]:
        terms, forces = self.field(leaves, positions)
        off = positions - restraint.places
        pull = restraint.k[:, None] * off
        return {**terms, "restraint": 0.5 * jnp.sum(pull * off)}, forces.astype(positions.dtype) - pull

    def _run(
        self, state: State, leaves: Any, restraint: Restraint, steps: Array, friction: Array
    ) -> tuple[State, Observed]:
        seen: dict[str, Any] = {}

        def forces(positions: Array, **_: Any) -> Array:
            seen["terms"], pull = self._looked(positions, leaves, restraint)
            return pull

        # The step's own trace, not one of its own (jax-md jits it), so that the terms beside the forces can be kept:
        # the field, whose compilation takes most of the time, is in the program once. A look is a step of no length.
        dt = jnp.where(steps > 0, self.dynamics.timestep * FEMTOSECOND, 0.0)
        apply = self._step(forces, friction, dt).__wrapped__

        def step(_: Any, carry: Any) -> Any:
            integrator, _ = carry
            return apply(integrator), seen["terms"]

        shapes, _ = jax.eval_shape(self._looked, state.integrator.position, leaves, restraint)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        integrator, terms = jax.lax.fori_loop(0, jnp.maximum(steps, 1), step, (state.integrator, nothing))
        momentum = integrator.momentum
        if self.dynamics.ensemble != "nose-hoover":
            # At constant energy it is momenta at the end of a step that go with the potential energy there.
            ahead = 0.5 * self.dynamics.timestep * FEMTOSECOND
            ahead = ahead if self.dynamics.ensemble == "langevin" else jnp.where(friction > 0, ahead, 0.0)
            momentum = momentum + ahead * integrator.force
        kinetic = 0.5 * jnp.sum(momentum**2 / integrator.mass)
        temperature = 2 * kinetic / (self.freedom * BOLTZMANN_EV)
        observed = Observed(terms, kinetic, temperature, integrator.position, integrator.force)
        return State(integrator, state.step + steps), observed


def minimise(
    field: Field,
    leaves: Any,
    positions: Float[Array, "n 3"],
    *,
    tolerance: float = 0.05,
    most: int = 1000,
    restraint: Restraint | None = None,
    explain: Callable[[np.ndarray], str | None] | None = None,
) -> tuple[Float[Array, "n 3"], dict[str, float]]:
    """Downhill by FIRE (Bitzek et al. 2006, doi 10.1103/PhysRevLett.97.170201).

    Args:
      field: energies and forces.
      leaves: of the field.
      positions: Å.
      tolerance: eV/Å; no atom feels a larger force at the end.
      most: steps at most.
      restraint: springs that are obeyed.
      explain: what it says of (n, 3) positions without an energy is told instead of what is usual.

    Returns:
      Positions in Å, and `steps`, and `largest_force` before and after in eV/Å. The positions are the last ones, also
      where `most` steps were not enough: look at `largest_force`.

    Raises:
      InputError: an energy or a force that is not finite was met; names the terms.
    """
    from jax_md import minimize

    n = np.shape(positions)[0]
    springs = restraint or Restraint(np.zeros(n), np.zeros((n, 3)))

    def forces(positions: Array, *, leaves: Any, springs: Restraint, **_: Any) -> Array:
        pull = springs.k[:, None] * (positions - springs.places)
        terms, forces = field(leaves, positions)
        # An energy that is none spoils the forces, so that it ends the search here and is never taken for a minimum.
        whole = jnp.isfinite(jnp.stack([value.astype(positions.dtype) for value in terms.values()])).all()
        return jnp.where(whole, forces.astype(positions.dtype) - pull, jnp.nan)

    # jax-md's own first time step, 0.1, is for unit masses of soft spheres; bonds in eV/Å² need far less.
    _, apply = minimize.fire_descent(forces, lambda r, dr, **_: r + dr, dt_start=0.005, dt_max=0.05)
    # Without forces at first, the first step moves nothing and finds them: the field is in the program once.
    init, _ = minimize.fire_descent(lambda r, **_: jnp.zeros_like(r), lambda r, dr, **_: r + dr, 0.005, 0.05)

    def largest(state: Any) -> Array:
        return jnp.sqrt(jnp.max(jnp.sum(state.force**2, -1)))

    @jax.jit
    def go(leaves: Any, springs: Restraint, positions: Array) -> Any:
        def more(carry: Any) -> Array:
            state, count, _ = carry
            return (count < 1) | ((count <= most) & (largest(state) > tolerance) & jnp.isfinite(largest(state)))

        def step(carry: Any) -> Any:
            state, count, first = carry
            state = apply(state, leaves=leaves, springs=springs)
            return state, count + 1, jnp.where(count == 0, largest(state), first)

        zero = jnp.zeros((), positions.dtype)
        state, count, first = jax.lax.while_loop(more, step, (init(positions), jnp.zeros((), jnp.int32), zero))
        return state.position, count - 1, first, largest(state)

    found, count, before, after = go(leaves, springs, jnp.asarray(positions, jnp.float64))
    if not jnp.isfinite(after):
        why = explain(np.asarray(found)) if explain is not None and jnp.isfinite(found).all() else None
        if why:
            raise InputError(f"minimisation, {int(count)} steps: {why}")
        energies = jax.jit(field)(leaves, found)[0]
        lost = ", ".join(f"{name} ({float(value)})" for name, value in energies.items() if not jnp.isfinite(value))
        raise InputError(
            f"minimisation, {int(count)} steps: {f'energy not finite: {lost}' if lost else 'forces not finite'}; look "
            "at the structure for atoms that are too close"
        )
    return found, {
        "steps": int(count), "largest_force_before": float(before), "largest_force": float(after)
    }  # fmt: skip
