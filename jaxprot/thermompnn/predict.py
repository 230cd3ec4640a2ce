"""The stability predictor: structures in, ddG out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import CheckpointError, InputError, naming
from jaxprot.core.residues import STANDARD
from jaxprot.core.structure import Structure
from jaxprot.io.mutations import Mutation, parse_mutations
from jaxprot.io.structures import read_structure
from jaxprot.nn.runner import Runner
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.featurize import BackboneChain, Features, featurize, pad_features, parse_chains
from jaxprot.thermompnn import weights as tables
from jaxprot.thermompnn.calibration import of_size, standard_deviation
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.model import ThermoMPNN
from jaxprot.thermompnn.results import Doubles, Mutants, Scan, Sites, joined, value_flags
from jaxprot.weights import inspect, module
from jaxprot.weights.convert import fill

Source = Structure | str | os.PathLike
_PAIR_CHUNK = 8192
# A tensor that tells the published layouts apart.
_LAYOUTS = {
    "model.both_out.1.weight": (tables.OFFICIAL, ThermoMPNNConfig.paper),
    "model.light_attention.0.weight": (tables.EPISTATIC, ThermoMPNNConfig.paper_epistatic),
    "model.ddg_out.1.weight": (tables.ADDITIVE, ThermoMPNNConfig.paper_additive),
}
_CONVERTED = {
    "jaxprot.thermompnn.weights:OFFICIAL": ThermoMPNNConfig.paper,
    "jaxprot.thermompnn.weights:EPISTATIC": ThermoMPNNConfig.paper_epistatic,
    "jaxprot.thermompnn.weights:ADDITIVE": ThermoMPNNConfig.paper_additive,
}


def ddg_scan(model: ThermoMPNN, features: Features) -> Float[Array, "n 20"]:
    """Site-saturation ddG, kcal/mol."""
    return model.ddg(features)


def ddg_spread(
    model: ThermoMPNN, features: Features, noise: Float[Array, ""], keys: PRNGKeyArray
) -> Float[Array, "n 20"]:
    """Standard deviation of the ddG over copies of the backbone with Gaussian noise of `noise` Å, one per key."""

    def noisy(key):
        draw = jax.random.normal(key, features.X.shape)
        return model.ddg(features._replace(X=features.X + noise * draw))

    return jnp.std(jax.lax.map(noisy, keys), axis=0, ddof=1)


def scan_and_spread(
    model: ThermoMPNN, features: Features, noise: Float[Array, ""], key_data: UInt32[Array, "s 2"]
) -> tuple[Float[Array, "n 20"], Float[Array, "n 20"]]:
    """Site-saturation ddG and its spread (zeros for fewer than two keys); keys as raw data, which numpy can stack."""
    ddg = model.ddg(features)
    if key_data.shape[0] < 2:
        return ddg, jnp.zeros_like(ddg)
    return ddg, ddg_spread(model, features, noise, jax.random.wrap_key_data(key_data))


def pair_inputs(model: ThermoMPNN, features: Features):
    """What the epistatic head reads."""
    return model.pair_inputs(features)


def pair_ddg(model: ThermoMPNN, inputs, positions, mutants):
    """ddG of a chunk of double mutants."""
    return model.epistatic(inputs, positions, mutants)


class Predictor:
    """ThermoMPNN, ready to run.

    Args:
      model: the network.
      uncertainty: how the spread over noised backbones becomes a standard deviation: `noise` (Å), `scale` and
        `floor` (kcal/mol), fitted on held-out proteins: sd = sqrt(floor² + (scale · spread)²), and optionally `large`,
        other values for large structures (`calibration.of_size`). Weights without a calibration use the bare spread
        at 0.1 Å.
      source: where the weights come from.

    Attributes:
      calibrated: whether the weights came with a calibration.
      seconds: wall time spent so far on reading and on featurizing structures.
    """

    def __init__(self, model: ThermoMPNN, uncertainty: dict[str, Any] | None = None, source: str = ""):
        self.config = model.cfg
        self.runner = Runner(model)
        self.calibrated = bool(uncertainty)
        self.uncertainty = {"noise": 0.1, "scale": 1.0, "floor": 0.0, **(uncertainty or {})}
        self.source = source
        self.seconds = {"read": 0.0, "featurize": 0.0}

    def pure(self) -> tuple[Callable[[Any, Features], Float[Array, "n 20"]], list[Array]]:
        """(apply, leaves): `apply(leaves, features)` is the scan as plain JAX, differentiable in weights and X."""
        self.needs_single("pure()")
        return self.runner.pure(ddg_scan)

    def needs_single(self, what: str) -> None:
        """Raises an `InputError` that says what cannot be done with double-mutant weights, if these are such."""
        if self.config.kind != "single":
            raise InputError(
                f"{self.source or 'these weights'}: a double-mutant model has no single-mutant scan, which {what} "
                "needs; use the weights `thermompnn`, `thermompnn:official` or `thermompnn:ens1`"
            )

    def _prepare(
        self, structure: Structure | str | os.PathLike, chains: str | Sequence[str] | None
    ) -> tuple[Structure, list[BackboneChain], Features]:
        begin, source = time.perf_counter(), structure
        if not isinstance(structure, Structure):
            structure = read_structure(structure)
        read = time.perf_counter()
        with naming(source, structure.name):
            parsed = parse_chains(structure, chains)
        features = featurize(parsed, sort=False)
        features = pad_features(features, bucket_length(len(features.S)))
        self.seconds["read"] += read - begin
        self.seconds["featurize"] += time.perf_counter() - read
        return structure, parsed, features

    def _keys(self, samples: int, seed: int) -> PRNGKeyArray:
        return jax.random.split(jax.random.key(seed), samples)

    def _scan(self, structure: Structure, parsed: list[BackboneChain], ddg: np.ndarray, spread: np.ndarray | None):
        sites = Sites.of(parsed)
        n = len(sites.letter)
        ddg = np.where(sites.predicted[:, None], ddg[:n], np.nan)
        if spread is None:
            sd = np.full_like(ddg, np.nan)
        else:
            sd = standard_deviation(spread[:n], *of_size(self.uncertainty, int(sites.predicted.sum())))
            sd = np.where(sites.letter[:, None] == np.array(list(STANDARD)), 0.0, sd)
            sd = np.where(sites.predicted[:, None], sd, np.nan).astype(np.float32)
        return Scan(structure.name, structure, sites, ddg, sd, self.calibrated)

    def scan(
        self,
        structure: Structure | str | os.PathLike,
        chains: str | Sequence[str] | None = None,
        *,
        samples: int = 4,
        seed: int = 0,
        tied: Sequence[Sequence[str]] = (),
    ) -> Scan:
        """Predict every single substitution.

        Args:
          structure: a path or a parsed structure.
          chains: the chains that form the protein, together (`"A,B"`); all protein chains by default.
          samples: noised backbones for the uncertainty; 0 leaves it out.
          seed: of the noise.
          tied: groups of chains of a homo-oligomer that mutate together (`[["A", "B"]]`): the ddG of each residue
            becomes the sum over the residues of the same number.

        Raises:
          InputError: not a structure, unknown chain, no backbone.
        """
        self.needs_single("scan")
        structure, parsed, features = self._prepare(structure, chains)
        ddg = np.asarray(self.runner(ddg_scan, features))
        spread = None
        if samples > 1:
            noise = np.float32(self.uncertainty["noise"])
            spread = np.asarray(self.runner(ddg_spread, features, noise, self._keys(samples, seed)))
        result = self._scan(structure, parsed, ddg, spread)
        return tie(result, tied) if tied else result

    def scan_many(
        self,
        structures: Iterable[Source | tuple[Source, str | Sequence[str] | None]],
        chains: str | Sequence[str] | None = None,
        *,
        samples: int = 4,
        seed: int = 0,
    ) -> Iterator[tuple[int, Scan | Exception]]:
        """Scan many structures, one program per length bucket and, on accelerators, several structures at a time.

        Args:
          structures: paths or parsed structures, or pairs of one and its own choice of chains.
          chains: the chains that form the protein, for structures without a choice of their own.
          samples: noised backbones for the uncertainty; 0 leaves it out.
          seed: of the noise.

        Yields:
          (number of the structure, its scan or the error that reading it gave), in the order in which they are ready.
        """
        self.needs_single("scan")
        held: dict[int, tuple[int, Structure, list[BackboneChain]]] = {}
        failed: list[tuple[int, Exception]] = []

        def items():
            for number, item in enumerate(structures):
                try:
                    item, own = item if isinstance(item, tuple) else (item, chains)
                    structure, parsed, features = self._prepare(item, own)
                except Exception as error:  # one structure must not end a run over many
                    failed.append((number, error))
                    continue
                held[len(started)] = (number, structure, parsed)
                started.append(number)
                yield len(features.S), (features, noise, keys)

        started: list[int] = []
        noise = np.float32(self.uncertainty["noise"])
        # Arguments and not constants of the program: another seed needs no other program.
        keys = np.asarray(jax.random.key_data(self._keys(max(samples, 1), seed)))
        for place, (ddg, spread) in self.runner.map(scan_and_spread, items()):
            yield from failed
            failed.clear()
            number, structure, parsed = held.pop(place)
            yield number, self._scan(structure, parsed, ddg, spread if samples > 1 else None)
        yield from failed

    def predict(
        self,
        structure: Structure | str | os.PathLike,
        mutations: Sequence[str | tuple[Mutation, ...]],
        chains: str | Sequence[str] | None = None,
        *,
        samples: int = 4,
        seed: int = 0,
    ) -> Mutants:
        """Predict listed mutations; several in one entry (`A10G:L55V`) are summed, or go through the epistatic model.

        Args:
          structure: a path or a parsed structure.
          mutations: `A123G`, `H:A52bG`, `A10G:L55V`; author numbering.
          chains: the chains that form the protein; all by default. A mutation without chain is of the first.
          samples: noised backbones for the uncertainty; 0 leaves it out.
          seed: of the noise.

        Raises:
          InputError: every entry that does not fit the structure, in one message.
        """
        entries = [parse_mutations(m) if isinstance(m, str) else tuple(m) for m in mutations]
        if not isinstance(structure, Structure):
            structure = read_structure(structure)
        if self.config.kind == "epistatic":
            return self._predict_pairs(structure, entries, chains)
        return self.lookup(self.scan(structure, chains, samples=samples, seed=seed), entries)

    def lookup(self, scan: Scan, entries: Sequence[tuple[Mutation, ...]]) -> Mutants:
        """Listed mutations in a scan; several in one entry are summed.

        Raises:
          InputError: every entry that does not fit the structure, in one message.
        """
        self._check(scan.sites, entries, scan.name)
        where = [[locate(scan.sites, m, scan.name) for m in entry] for entry in entries]
        flags = scan.sites.flags()
        ddg, sd, flag = [], [], []
        for places in where:
            values = np.array([scan.ddg[i, a] for i, a in places])
            ddg.append(values.sum())
            sd.append(np.sqrt(sum(scan.sd[i, a] ** 2 for i, a in places)))
            doubts = [flags[i] for i, _ in places]
            letters = "".join(STANDARD[a] for i, a in places if STANDARD[a] != scan.sites.letter[i])
            extra = ["additive"] if len(places) > 1 else []
            flag.append(joined(extra, *doubts, value_flags(values.sum(), letters)))
        return Mutants(scan.name, np.array(ddg), np.array(sd), flag)

    def _check(self, sites: Sites, entries: Sequence[tuple[Mutation, ...]], name: str) -> None:
        problems = []
        for entry in entries:
            seen = set()
            for mutation in entry:
                try:
                    place = locate(sites, mutation, name)
                except InputError as error:
                    problems.append(str(error))
                    continue
                if place[0] in seen:
                    problems.append(f"{name}: {mutation} mutates a residue that another part of the entry mutates")
                seen.add(place[0])
        if problems:
            shown = problems[:20] + ([f"... and {len(problems) - 20} more"] if len(problems) > 20 else [])
            raise InputError("\n  ".join(shown))

    def _predict_pairs(
        self, structure: Structure, entries: list[tuple[Mutation, ...]], chains: str | Sequence[str] | None
    ) -> Mutants:
        structure, parsed, features = self._prepare(structure, chains)
        sites = Sites.of(parsed)
        wrong = [":".join(map(str, e)) for e in entries if len(e) != 2]
        if wrong:
            raise InputError(
                f"{structure.name}: the double-mutant model takes pairs only, not {', '.join(wrong[:5])}; "
                "use the weights `thermompnn` for single and additive mutations"
            )
        self._check(sites, entries, structure.name)
        where = np.array([[locate(sites, m, structure.name) for m in e] for e in entries], np.int32).reshape(-1, 2, 2)
        ddg = self._pairs(features, where[:, :, 0], where[:, :, 1])
        flags = sites.flags()
        flag = [
            joined(flags[p[0]], flags[p[1]], value_flags(v, STANDARD[a[0]] + STANDARD[a[1]]))
            for p, a, v in zip(where[:, :, 0], where[:, :, 1], ddg, strict=True)
        ]
        return Mutants(structure.name, ddg, np.full(len(ddg), np.nan), flag)

    def _pairs(self, features: Features, positions: np.ndarray, mutants: np.ndarray) -> np.ndarray:
        """Epistatic ddG of pairs, in chunks of one shape."""
        inputs = self.runner(pair_inputs, features)
        total = len(positions)
        chunk = min(_PAIR_CHUNK, bucket_length(max(total, 1)))
        out = np.zeros(total, np.float32)
        for start in range(0, total, chunk):
            p, a = (np.asarray(v[start : start + chunk], np.int32) for v in (positions, mutants))
            pad = ((0, chunk - len(p)), (0, 0))
            value = self.runner(pair_ddg, inputs, np.pad(p, pad), np.pad(a, pad))
            out[start : start + chunk] = np.asarray(value)[: len(p)]
        return out

    def doubles(
        self,
        structure: Structure | str | os.PathLike,
        chains: str | Sequence[str] | None = None,
        *,
        mode: str = "additive",
        max_distance: float = 5.0,
        max_ddg: float | None = -0.5,
        disulfide_penalty: float = 0.0,
        samples: int = 4,
        seed: int = 0,
    ) -> Doubles:
        """Predict all double mutants of residues close to each other.

        Args:
          structure: a path or a parsed structure.
          chains: the chains that form the protein; all by default.
          mode: `additive` (sum of the single ddG) or `epistatic` (needs weights of the double-mutant model).
          max_distance: CA-CA distance in Å below which pairs are taken.
          max_ddg: keep pairs of at most this ddG, kcal/mol; None keeps all.
          disulfide_penalty: kcal/mol added for each mutated cysteine of a disulfide (SG within 3 Å of another).
          samples: noised backbones for the uncertainty of the additive mode; 0 leaves it out.
          seed: of the noise.

        Raises:
          InputError: unknown mode, or weights that cannot do it.
        """
        if mode not in ("additive", "epistatic"):
            raise InputError(f"mode must be additive or epistatic, not {mode!r}")
        if mode == "epistatic" and self.config.kind != "epistatic":
            raise InputError(
                f"{self.source or 'these weights'}: single-mutant weights cannot predict epistatic doubles; "
                "use `--weights thermompnn-d:ens1` (fetched) or a ThermoMPNN-D checkpoint, or `--mode additive`"
            )
        if mode == "additive":
            self.needs_single("additive doubles")
        structure, parsed, features = self._prepare(structure, chains)
        sites = Sites.of(parsed)
        ca = np.concatenate([c.xyz for c in parsed])[:, 1]
        distance = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
        usable = sites.predicted & np.isfinite(ca).all(1)
        close = np.triu((distance > 0) & (distance < max_distance), 1) & usable[:, None] & usable[None]
        pairs = np.argwhere(close)
        wild = np.array([STANDARD.index(c) if c != "-" else -1 for c in sites.letter])
        letters = np.array([(a, b) for a in range(20) for b in range(20)], np.int32)
        bridged = disulfides(structure, sites) if disulfide_penalty else np.zeros(len(wild))
        single = sd = None
        if mode == "additive":
            scan = self.scan(structure, chains, samples=samples, seed=seed)
            single, sd = scan.ddg, scan.sd
        # In chunks, and filtered at once: all pairs of a large protein have more than 10^7 double mutants.
        found: list[tuple[np.ndarray, ...]] = []
        for start in range(0, max(len(pairs), 1), _PAIR_CHUNK // 4):
            part = pairs[start : start + _PAIR_CHUNK // 4]
            positions = np.repeat(part, len(letters), axis=0)
            mutants = np.tile(letters, (len(part), 1))
            kept = (mutants != wild[positions]).all(axis=1)
            positions, mutants = positions[kept], mutants[kept]
            if single is not None and sd is not None:
                ddg = single[positions, mutants].sum(axis=1)
                error = np.sqrt((sd[positions, mutants] ** 2).sum(axis=1))
            else:
                ddg = self._pairs(features, positions, mutants)
                error = np.full(len(ddg), np.nan, np.float32)
            ddg = ddg + np.float32(disulfide_penalty) * bridged[positions].sum(axis=1).astype(np.float32)
            kept = np.ones(len(ddg), bool) if max_ddg is None else ddg <= max_ddg
            found.append((positions[kept], mutants[kept], ddg[kept], error[kept]))
        positions, mutants, ddg, error = (np.concatenate(column) for column in zip(*found, strict=True))
        apart = distance[tuple(positions.T)]
        calibrated = self.calibrated
        return Doubles(structure.name, sites, mode, positions, mutants, apart, ddg, error, calibrated)


def locate(sites: Sites, mutation: Mutation, name: str = "structure") -> tuple[int, int]:
    """Row and mutant letter of a mutation.

    Raises:
      InputError: unknown chain, residue outside the chain, or another wild-type letter; the message tells the true one.
    """
    chains = {c.id: c for c in sites.chains}
    chain_id = mutation.chain if mutation.chain is not None else sites.chains[0].id
    if chain_id not in chains:
        raise InputError(f"{name}: {mutation} names chain {chain_id!r}; chains used: {', '.join(chains)}")
    chain = chains[chain_id]
    try:
        at = chain.index(mutation.resid, mutation.icode)
    except InputError as error:
        raise InputError(f"{name}: {mutation}: {error}") from None
    if chain.sequence[at] != mutation.wt:
        found = chain.sequence[at]
        what = "an unknown residue" if found == "-" else found
        raise InputError(
            f"{name}: {mutation}: residue {mutation.resid}{mutation.icode} of chain {chain_id} is {what}, "
            f"not {mutation.wt}; check chain and numbering (author numbers of the file)"
        )
    offset = 0
    for c in sites.chains:
        if c.id == chain_id:
            break
        offset += len(c)
    return offset + at, STANDARD.index(mutation.mut)


def tie(scan: Scan, groups: Sequence[Sequence[str]]) -> Scan:
    """A scan in which the chains of each group mutate together: values of equal residue numbers are summed.

    Raises:
      InputError: a chain that is not there, or residues of one number with different letters.
    """
    s, ddg, variance = scan.sites, scan.ddg.copy(), scan.sd**2
    known = {c.id for c in s.chains}
    for group in groups:
        missing = [c for c in group if c not in known]
        if missing:
            raise InputError(
                f"{scan.name}: no chain {', '.join(missing)} to tie; chains used: {', '.join(sorted(known))}"
            )
        rows = np.flatnonzero(np.isin(s.chain, list(group)) & s.predicted)
        label = np.array([s.label(i) for i in rows])
        for name in np.unique(label):
            same = rows[label == name]
            if len(set(s.letter[same])) > 1:
                raise InputError(
                    f"{scan.name}: residue {name} is {'/'.join(s.letter[same])} in chains {'/'.join(s.chain[same])}; "
                    "tied chains must have one sequence"
                )
            ddg[same] = scan.ddg[same].sum(axis=0)
            variance[same] = (scan.sd[same] ** 2).sum(axis=0)
    return Scan(scan.name, scan.structure, s, ddg, np.sqrt(variance), scan.calibrated)


def disulfides(structure: Structure, sites: Sites, cutoff: float = 3.0) -> np.ndarray:
    """(n,) True for cysteines whose SG lies within `cutoff` Å of another's."""
    first = structure.first_model()
    rows = np.flatnonzero(first.atom_name == "SG")
    residue = first.atom_residue[rows]
    apart = np.linalg.norm(first.xyz[rows][:, None] - first.xyz[rows][None], axis=-1)
    other = residue[:, None] != residue[None]
    bridged = {
        (str(first.chain_id[first.res_chain[r]]), int(first.resid[r]), str(first.icode[r]))
        for r in residue[((apart < cutoff) & other).any(axis=1)]
    }
    keys = zip(sites.chain, sites.resid, sites.icode, strict=True)
    return np.array([(str(c), int(r), str(i)) in bridged for c, r, i in keys])


def load(path: str | os.PathLike, **config: Any) -> Predictor:
    """A predictor from shipped, converted or official weights.

    Args:
      path: `.safetensors` written by jaxprot, or an official ThermoMPNN / ThermoMPNN-D `.pt` / `.ckpt`.
      **config: replaces fields of the `ThermoMPNNConfig`.

    Raises:
      InputError: no such file.
      CheckpointError: damaged, refused, or of another model.
    """
    kind, tensors, header = inspect.read(path)
    source = os.path.basename(os.fspath(path))
    rules: Any = ()
    if kind == "safetensors":
        if header.get("system") != "thermompnn":
            raise CheckpointError(
                f"{path}: weights of {header.get('system', 'an unknown system')}, not of thermompnn; "
                "`jaxprot weights inspect FILE` tells what a file holds"
            )
        try:
            cfg = config_from(header)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    else:
        layout: Any = next((value for key, value in _LAYOUTS.items() if key in tensors), None)
        if layout is None:
            what = "a ProteinMPNN checkpoint without stability head" if "W_e.weight" in tensors else "another model's"
            raise CheckpointError(
                f"{path}: not a ThermoMPNN checkpoint but {what}; `jaxprot weights inspect FILE` lists its keys"
            )
        rules, make = layout
        cfg = make()
    blueprint = _blueprint(dataclasses.replace(cfg, **config) if config else cfg)
    if kind != "safetensors":
        ignored = tables.IGNORED_EPISTATIC if rules is tables.EPISTATIC else tables.IGNORED
        tensors = fill(module.shapes(blueprint), tensors, rules, ignored, str(path))
    try:
        model = module.assemble(blueprint, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Predictor(model, header.get("uncertainty"), source)


def _blueprint(cfg: ThermoMPNNConfig) -> module.Blueprint:
    return module.Blueprint(lambda rngs: ThermoMPNN(cfg, rngs=rngs))


def config_from(header: dict[str, Any]) -> ThermoMPNNConfig:
    """Configuration in the header of a portable file.

    Raises:
      CheckpointError: the header has none, or fields this version does not know.
    """
    if header.get("converter") in _CONVERTED:
        return _CONVERTED[header["converter"]]()
    try:
        values = dict(header["config"])
        backbone = ProteinMPNNConfig(**values.pop("backbone"))
        return ThermoMPNNConfig(backbone=backbone, **{**values, "hidden": tuple(values["hidden"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the weights' header has no configuration that this version reads ({error}); update jaxprot"
        ) from error


def antisymmetry(direct: np.ndarray, inverse: np.ndarray) -> dict[str, float]:
    """How well predictions of mutations and of their reverses, on the mutants' own structures, oppose each other.

    Args:
      direct: (m,) predicted ddG of A -> B on the structure of A, kcal/mol.
      inverse: (m,) predicted ddG of B -> A on the structure of B.

    Returns:
      n, pearson (-1 is perfect), bias (mean of half the sum, 0 is perfect) and rmse of direct + inverse.
    """
    from jaxprot.core import metrics

    total = np.asarray(direct) + np.asarray(inverse)
    return {
        "n": len(total),
        "pearson": float(metrics.pearson(np.asarray(direct), np.asarray(inverse))),
        "bias": float(np.mean(total) / 2),
        "rmse": float(np.sqrt(np.mean(total**2))),
    }
