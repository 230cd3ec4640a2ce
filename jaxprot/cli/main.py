"""`jaxprot`: finds the command, parses its options, and turns errors into exit codes.

A command is a function of one frozen dataclass; its fields are the options, its docstring the help. Modules of commands
are imported only when their command runs, so that `jaxprot --help` stays fast.

Exit codes: 0 done; 1 some inputs failed (listed), weights could not be fetched, or an internal error; 2 wrong input or
options; 130 interrupted.
"""

import difflib
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from jaxprot._version import __version__
from jaxprot.core.errors import DownloadError, JaxprotError

# command -> (module:function, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("jaxprot.cli.demo:demo", "run the example of a system (default: the stability scan)"),
    "thermompnn scan": ("jaxprot.cli.thermompnn:scan", "stability change of every mutation of a protein"),
    "thermompnn predict": ("jaxprot.cli.thermompnn:predict", "stability change of the mutations in a table"),
    "thermompnn doubles": ("jaxprot.cli.thermompnn:doubles", "stability change of pairs of mutations"),
    "proteinmpnn design": ("jaxprot.cli.proteinmpnn:design", "sequences for a backbone"),
    "proteinmpnn score": ("jaxprot.cli.proteinmpnn:score", "how well sequences fit a backbone"),
    "rmsfnet predict": ("jaxprot.cli.rmsfnet:predict", "flexibility of every atom from a map, a model or both"),
    "rmsfnet molmap": ("jaxprot.cli.rmsfnet:molmap", "simulated map of a model"),
    "rmsfnet compare": ("jaxprot.cli.rmsfnet:compare", "predicted flexibility against a reference"),
    "rmsfnet dataset": ("jaxprot.cli.rmsfnet:dataset", "training entries from maps, models and trajectories"),
    "cryostar simulate": ("jaxprot.cli.cryostar:simulate", "particle images of a molecule that moves, with the truth"),
    "cryostar fit": ("jaxprot.cli.cryostar:fit", "a conformation for every particle image"),
    "cryostar density": ("jaxprot.cli.cryostar_results:density", "density maps along what `cryostar fit` found"),
    "cryostar analyze": ("jaxprot.cli.cryostar_results:analyze", "conformations, clusters and mobility of a run"),
    "cryostar export": ("jaxprot.cli.cryostar_results:export", "a run as files of the published code"),
    "ai2bmd prepare": ("jaxprot.cli.ai2bmd:prepare", "hydrogens, caps and missing atoms for a raw structure"),
    "ai2bmd energy": ("jaxprot.cli.ai2bmd:energy", "energy and forces of a protein"),
    "ai2bmd fragment": ("jaxprot.cli.ai2bmd:fragment", "how a protein is cut into units"),
    "ai2bmd simulate": ("jaxprot.cli.ai2bmd:simulate", "molecular dynamics of a protein"),
    "massa embed": ("jaxprot.cli.massa_embed:embed", "vectors of proteins from sequence, structure and GO terms"),
    "massa finetune": ("jaxprot.cli.massa_finetune:finetune", "train on labelled sequences or pairs, or a benchmark"),
    "massa predict": ("jaxprot.cli.massa:predict", "what a fine-tuned network says of sequences or pairs"),
    "massa interactions": ("jaxprot.cli.massa:interactions", "types of interactions of proteins from known pairs"),
    "transfer matrix": ("jaxprot.cli.transfer:matrix", "distances between tasks"),
    "transfer report": ("jaxprot.cli.transfer:report", "which source task helps a target, and which score tells"),
    "train": ("jaxprot.cli.train:train", "train a system from an experiment file"),
    "weights list": ("jaxprot.cli.weights:list_weights", "known weights, and which are at hand"),
    "weights fetch": ("jaxprot.cli.weights:fetch", "download published weights into the cache"),
    "weights convert": ("jaxprot.cli.weights:convert", "write a published checkpoint as a portable file"),
    "weights inspect": ("jaxprot.cli.weights:inspect", "what a file of weights holds and which system reads it"),
    "info": ("jaxprot.cli.info:info", "versions, devices and folders"),
    "cite": ("jaxprot.cli.info:cite", "BibTeX of the library and the papers of a system"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except JaxprotError as error:
        if debug:
            raise
        return _fail(str(error), 1 if isinstance(error, DownloadError) else 2)
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; flushing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            raise
        detail = " ".join(str(error).split())
        return _fail(f"internal: {type(error).__name__}: {detail} (--debug shows where)", 1)


def _fail(message: str, code: int) -> int:
    print(f"jaxprot: error: {message}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"jaxprot {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    verbs = [command.split()[1] for command in COMMANDS if command.startswith(f"{name} ")]
    if verbs:
        if not rest or rest[0] in ("-h", "--help"):
            print(_help(name))
            return 0
        if rest[0] not in verbs:
            return _fail(_unknown(f"{name} {rest[0]}", [f"{name} {verb}" for verb in verbs]), 2)
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        return _fail(_unknown(name, sorted({command.split()[0] for command in COMMANDS})), 2)
    return run(name, rest)


def run(name: str, argv: Sequence[str]) -> int:
    """Parses the options of one command and runs it."""
    target = COMMANDS[name][0]
    module, _, attribute = target.partition(":")
    try:
        function: Callable[[Any], int | None] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return _fail(f"`{name}` is not part of this version", 2)
    from jaxprot.cli import options
    from jaxprot.weights import packages

    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    (kind,) = hints.values()
    parsed = options.parse(kind, list(argv), f"jaxprot {name}", inspect.cleandoc(function.__doc__ or ""))
    if isinstance(parsed, options.Compute):
        options.start(parsed)
    with options.warnings_shown(), packages.watched(options.counted):
        return int(function(parsed) or 0)


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean `{nearest[0]}`? " if nearest else ""
    return f"no command `{name}`; {hint}`jaxprot --help` lists all"


def _help(group: str | None = None) -> str:
    shown = {name: text for name, (_, text) in COMMANDS.items() if group is None or name.startswith(f"{group} ")}
    width = max(len(name) for name in shown) + 2
    lines = [
        f"usage: jaxprot {group or 'COMMAND'} {'VERB' if group else '[VERB]'} [OPTIONS]",
        "",
        "Protein stability, flexibility, heterogeneity, dynamics and transfer learning in JAX.",
        "",
        *(f"  {name:<{width}}{text}" for name, text in shown.items()),
        "",
        "`jaxprot COMMAND [VERB] --help` shows the options of one; `jaxprot --version` the version.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
