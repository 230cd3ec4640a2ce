"""`jaxprot demo`: the example run of a system."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

# system -> command line of its example; EXAMPLE is replaced by the path of a shipped file
_RUNS = {
    "thermompnn": ("thermompnn scan", ["EXAMPLE:ubiquitin.pdb"]),
    "proteinmpnn": ("proteinmpnn design", ["EXAMPLE:trpcage.pdb"]),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `demo`."""

    system: tyro.conf.Positional[Literal["thermompnn", "proteinmpnn"]] = "thermompnn"
    """Whose example to run."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Folder for the results (default: jaxprot-demo/SYSTEM); results of an earlier demo are replaced."""
    debug: bool = False
    """Show tracebacks."""


def demo(options: DemoOptions) -> int:
    """Runs the example of a system on a small protein that ships with the package, with the shipped weights."""
    from jaxprot import examples
    from jaxprot.cli.main import run

    command, arguments = _RUNS[options.system]
    output = options.output or Path("jaxprot-demo") / options.system
    argv = [
        str(examples.path(text.removeprefix("EXAMPLE:"))) if text.startswith("EXAMPLE:") else text for text in arguments
    ]
    argv += ["-o", str(output), "--overwrite"] + (["--debug"] if options.debug else [])
    print(f"$ jaxprot {command} {' '.join(argv)}")
    code = run(command, argv)
    if code == 0:
        for path in sorted(output.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                print(f"  {path}  {path.stat().st_size:,} bytes")
    return code
