"""`jaxprot proteinmpnn design|score`."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxprot.cli.options import StructureOptions, expand, load, record, run_many, stems
from jaxprot.core.errors import InputError

if TYPE_CHECKING:
    from jaxprot.proteinmpnn.featurize import BackboneChain
    from jaxprot.proteinmpnn.inputs import DesignInputs

_Json = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
_Names = Annotated[str | None, tyro.conf.arg(metavar="A,B")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions(StructureOptions):
    """Options that say what is designed; files are in the published tool's form, positions there count filled gaps."""

    chains: _Names = None
    """Chains to read; all protein chains if not given."""
    design: _Names = None
    """Chains to design, the others are context; all if not given."""
    fixed: Annotated[str | None, tyro.conf.arg(metavar='"A:1-10,15 B:3"')] = None
    """Residues that keep their letter, by author numbers of the file."""
    fixed_jsonl: _Json = None
    """Positions that keep their letter, by structure and chain."""
    chain_id_jsonl: _Json = None
    """Designed and fixed chains by structure."""
    membrane: Literal["yes", "no"] | None = None
    """For the weights membrane_global_v_48_020: whether the protein lies in a membrane."""
    membrane_buried: Annotated[str | None, tyro.conf.arg(metavar='"A:5-24 B:7"')] = None
    """For the weights membrane_residue_v_48_020: residues that touch the lipid, by author numbers."""
    membrane_interface: Annotated[str | None, tyro.conf.arg(metavar='"A:3,4,25"')] = None
    """For the weights membrane_residue_v_48_020: residues at the height of the lipid heads."""
    backbone_noise: Annotated[float, tyro.conf.arg(metavar="ANGSTROM")] = 0.0
    """Standard deviation of noise on the coordinates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesignOptions(InputOptions):
    """Options of `proteinmpnn design`."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    """Sequences for each temperature."""
    temperature: Annotated[str, tyro.conf.arg(metavar="T,...")] = "0.1"
    """Sampling temperature, or several."""
    omit_aa: Annotated[str, tyro.conf.arg(metavar="LETTERS")] = "X"
    """Letters that are never drawn (X never is)."""
    omit_jsonl: _Json = None
    """Letters that are never drawn, by position."""
    bias_aa_json: _Json = None
    """Bias of each letter."""
    bias_by_res_jsonl: _Json = None
    """Bias of each letter at each position."""
    tied_jsonl: _Json = None
    """Positions that get the same letter."""
    homo_oligomer: bool = False
    """Equal positions of all designed chains get the same letter. As in the published tool, a position that one chain
    lacks (unresolved) keeps that chain's letter in all of them, X for a gap; a warning names such residues."""
    pssm_jsonl: _Json = None
    """Position-specific scores."""
    pssm_multi: float = 0.0
    """Share of the PSSM in the distribution, 0 to 1."""
    pssm_threshold: float = 0.0
    """Log-odds that a letter must exceed (with --pssm-log-odds)."""
    pssm_log_odds: bool = False
    """Hold letters back whose log-odds are below the threshold."""
    rank_by: Literal["score", "global_score", "ddg"] | None = None
    """Best first by the model's score or by predicted stability (ddG against the native sequence, then also listed)."""
    stability_weights: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "default"
    """Weights of thermompnn for `--rank-by ddg`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions(InputOptions):
    """Options of `proteinmpnn score`."""

    fasta: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Sequences to score besides the structure's own: designed chains by name, joined by '/', gaps as '-'."""
    draws: int = 8
    """Random decoding orders to average over."""
    unconditional: bool = False
    """Also write unconditional.npz: log-probabilities of every letter given the backbone alone."""
    conditional: bool = False
    """Also write conditional.npz: given the backbone and all other letters."""
    conditional_backbone: bool = False
    """Also write conditional_backbone.npz: given the backbone, by the decoder run with each residue first."""


@dataclasses.dataclass(frozen=True)
class _Target:
    """One structure: a file, or an entry of a parsed .jsonl file."""

    path: Path
    entry: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.entry is None else f"{self.path}, structure {self.entry}"


class _Targets:
    """All structures of a command line, with their names for folders."""

    def __init__(self, options: InputOptions):
        self.options = options
        self.paths = expand(options.inputs, also=(".jsonl",))
        self.parsed: dict[_Target, list[BackboneChain]] = {}
        self.items: list[_Target] = []
        for path in self.paths:
            if path.suffix.lower() != ".jsonl":
                self.items.append(_Target(path))
                continue
            from jaxprot.proteinmpnn.inputs import read_parsed_jsonl

            for name, chains in read_parsed_jsonl(path).items():
                self.items.append(_Target(path, name))
                self.parsed[self.items[-1]] = chains
        files = [t.path if t.entry is None else Path(re.sub(r"[^\w.+-]", "_", t.entry) + ".pdb") for t in self.items]
        self.folders = dict(zip(self.items, stems(files), strict=True))

    def folder(self, target: _Target) -> str | None:
        """Sub-folder of a structure's results; None for a single one."""
        return self.folders[target] if len(self.items) > 1 else None

    def inputs(self, target: _Target, ca_only: bool, **more: Any) -> "tuple[str, DesignInputs]":
        """Name and inputs of a structure."""
        from jaxprot.io.structures import read_structure
        from jaxprot.proteinmpnn import selection
        from jaxprot.proteinmpnn.featurize import parse_chains
        from jaxprot.proteinmpnn.inputs import design_inputs, homo_oligomer_ties, read_inputs

        o = self.options
        if target.entry is None:
            structure = read_structure(target.path)
            name, chains = structure.name, parse_chains(structure, o.chains, ca_only=ca_only)
        else:
            name, chains = target.entry, _chosen(target.entry, self.parsed[target], o.chains)
        designed = o.chain_id_jsonl if o.design is None else [part.strip() for part in o.design.split(",")]
        fixed: Any = o.fixed_jsonl
        if o.fixed is not None:
            listed = {} if o.fixed_jsonl is None else read_inputs(o.fixed_jsonl).get(name, {})
            fixed = {name: selection.merged(selection.positions(o.fixed, chains, name), listed)}
        for option in ("membrane_buried", "membrane_interface"):
            if (text := getattr(o, option)) is not None:
                more[option] = {name: selection.positions(text, chains, name)}
        if o.membrane is not None:
            more["membrane"] = o.membrane == "yes"
        if more.pop("homo_oligomer", False):
            tied = [c for c in chains if not isinstance(designed, list) or c.id in designed]
            more["tied"] = {name: homo_oligomer_ties(tied)}
        return name, design_inputs(name, chains, designed=designed, fixed=fixed, **more)


def _chosen(name: str, chains: "Sequence[BackboneChain]", wanted: str | None) -> "list[BackboneChain]":
    known = {chain.id: chain for chain in chains}
    names = list(known) if wanted is None else [part.strip() for part in wanted.split(",")]
    missing = [part for part in names if part not in known]
    if missing:
        raise InputError(f"{name}: no chain {missing[0]!r}; chains: {', '.join(known)}")
    return [known[part] for part in names]


def _check_labels(options: InputOptions, node_labels: int, source: str) -> None:
    """Raises if the labels on the command line are not those that the weights read."""
    import numpy as np

    from jaxprot.proteinmpnn.membrane import labels_for

    each = options.membrane_buried is not None or options.membrane_interface is not None
    whole = None if options.membrane is None else options.membrane == "yes"
    labels_for(node_labels, 0, whole, np.zeros(0, np.int32) if each else None, source)


def _check(options: InputOptions) -> None:
    """Raises what can be said about the options before anything is read."""
    if options.design is not None and options.chain_id_jsonl is not None:
        raise InputError("give --design or --chain-id-jsonl, not both")
    if options.backbone_noise < 0:
        raise InputError("--backbone-noise must not be negative")
    for text in (options.fixed, options.membrane_buried, options.membrane_interface):
        if text is not None:
            from jaxprot.proteinmpnn.selection import parse_selection

            parse_selection(text)


def design(options: DesignOptions) -> int:
    """Designs sequences for backbones.

    Writes designs.fasta (the structure's own sequence first), designs.csv and probs.npz; for several inputs into
    DIR/NAME/. Scores are mean negative log-probabilities; lower is better.

    Besides the default, which ships with jaxprot, the published weights can be taken by name (--weights NAME). v_48_020
    is the usual choice of the field, for models and for real backbones. v_48_002 recovers most of the native sequence
    on exact crystal structures, and is worse on others. soluble_v_48_020 learnt without membrane proteins: take it for
    designs that are to be expressed as soluble proteins. ca_v_48_020 is for backbones of which only CA atoms are known.
    membrane_global_v_48_020 and membrane_residue_v_48_020 are for membrane proteins; only they read the --membrane
    options. `jaxprot weights list` shows all.
    """
    from jaxprot.io.outputs import RunDirectory

    _check(options)
    if options.tied_jsonl is not None and options.homo_oligomer:
        raise InputError("give --tied-jsonl or --homo-oligomer, not both")
    try:
        temperatures = [float(text) for text in options.temperature.split(",")]
    except ValueError:
        raise InputError(f"--temperature {options.temperature}: give numbers such as 0.1 or 0.1,0.2") from None
    targets = _Targets(options)
    run = RunDirectory(options.output, options.overwrite)
    designer, weights = load(options, "proteinmpnn")
    _check_labels(options, designer.config.node_labels, weights["name"])
    predictor, more = None, {}
    if options.rank_by == "ddg":
        predictor, more["stability_weights"] = load(options, "thermompnn", options.stability_weights)

    def work(target: _Target) -> int:
        inputs = targets.inputs(
            target,
            designer.config.ca_only,
            homo_oligomer=options.homo_oligomer,
            **({} if options.homo_oligomer else {"tied": options.tied_jsonl}),
            omit_AA="".join(dict.fromkeys(options.omit_aa.upper() + "X")),
            omit=options.omit_jsonl,
            bias_AA=options.bias_aa_json,
            bias_by_res=options.bias_by_res_jsonl,
            pssm=options.pssm_jsonl,
        )
        found = designer.design(
            inputs=inputs,
            n=options.n,
            temperature=temperatures,
            seed=options.seed,
            pssm_multi=options.pssm_multi,
            pssm_threshold=options.pssm_threshold,
            pssm_log_odds=options.pssm_log_odds,
            backbone_noise=options.backbone_noise,
        )
        if predictor is not None:
            from jaxprot.thermompnn.design import rank_designs

            found = rank_designs(predictor, found)
        elif options.rank_by is not None:
            found = found.ranked(options.rank_by)
        folder = run.folder(targets.folder(target))
        found.write(folder, format=options.format, overwrite=True, model_name=weights["name"], seed=options.seed)
        return len(found)

    outcome = run_many(targets.items, work, debug=options.debug)
    record(
        options,
        run.folder(),
        "proteinmpnn design",
        inputs=targets.paths,
        weights=weights,
        timings={"run": outcome.seconds},
        failed=outcome.failed,
        **more,
    )
    print(f"{options.output}: {sum(outcome.results.values())} sequences for {len(outcome.results)} structures")
    return outcome.code


def score(options: ScoreOptions) -> int:
    """Scores how well sequences fit backbones.

    Writes scores.csv: mean negative log-probability of the structure's own sequence and of those of a FASTA file (lower
    is better); for several inputs into DIR/NAME/.
    """
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.sequences import read_fasta
    from jaxprot.io.tables import write_table

    _check(options)
    if options.draws < 1:
        raise InputError(f"--draws {options.draws}: at least one decoding order is needed")
    sequences: dict[str, str] = {}
    for item in read_fasta(options.fasta) if options.fasta is not None else []:
        label, number = item.name or "sequence", 2
        while label in sequences or label == "native":
            label, number = f"{item.name}-{number}", number + 1
        sequences[label] = item.sequence
    targets = _Targets(options)
    run = RunDirectory(options.output, options.overwrite)
    designer, weights = load(options, "proteinmpnn")
    _check_labels(options, designer.config.node_labels, weights["name"])
    kinds = [kind for kind in ("unconditional", "conditional", "conditional_backbone") if getattr(options, kind)]

    def work(target: _Target) -> int:
        inputs = targets.inputs(target, designer.config.ca_only)
        noise = {"seed": options.seed, "backbone_noise": options.backbone_noise}
        found = designer.score(inputs=inputs, sequences=sequences, draws=options.draws, **noise)
        profiles = {kind: designer.profile(inputs=inputs, kind=kind, **noise) for kind in kinds}
        folder = run.folder(targets.folder(target))
        write_table(found.columns(), folder / "scores", options.format)
        for kind, profile in profiles.items():
            profile.write(folder / f"{kind}.npz")
        return len(found.labels)

    outcome = run_many(targets.items, work, debug=options.debug)
    inputs = [*targets.paths, *([options.fasta] if options.fasta is not None else [])]
    record(
        options,
        run.folder(),
        "proteinmpnn score",
        inputs=inputs,
        weights=weights,
        timings={"run": outcome.seconds},
        failed=outcome.failed,
    )
    print(f"{options.output}: {sum(outcome.results.values())} scores on {len(outcome.results)} structures")
    return outcome.code
