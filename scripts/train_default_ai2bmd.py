"""Train and export the shipped potential, and test it on units that it has not seen.

    JAXPROT_UNITS=data/units jaxprot train experiments/ai2bmd/default.py -o runs/ai2bmd
    python scripts/train_default_ai2bmd.py errors --run runs/ai2bmd
    python scripts/train_default_ai2bmd.py export --run runs/ai2bmd

and, for generalisation, a copy that never saw three of the amino acids:

    jaxprot train experiments/ai2bmd/default.py -o runs/without --set 'task.exclude=[thr, gln, tyr]'
    python scripts/train_default_ai2bmd.py errors --run runs/without

`errors` prints mean absolute errors on all conformations that were held back (whole cells of φ and ψ), unit by unit;
units that were left out are marked, and all of their conformations count. `export` writes
`jaxprot/weights/default/ai2bmd.safetensors` and its hash into the registry.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DEFAULT = ROOT / "jaxprot" / "weights" / "default"


def errors(run: pathlib.Path, most: int | None) -> None:
    """Table of mean absolute errors."""
    import numpy as np
    from flax import nnx

    from jaxprot.train.config import read_config
    from jaxprot.visnet import weights

    task = read_config(run / "config.yaml").task
    net = weights.assemble(*weights.read(run / "best.safetensors"))
    graphdef, state = nnx.split(net)
    found = task.errors(graphdef, nnx.to_pure_dict(state), most)
    print("| unit | energy, kcal/mol | energy, kcal/mol per atom | force, kcal/mol/Å |\n|---|---|---|---|")
    for name, (energy, force) in found.items():
        mark = " (not trained on)" if name in task.exclude else ""
        print(f"| {name.upper()}{mark} | {energy * len(task.sets[name].z):.2f} | {energy:.3f} | {force:.2f} |")
    for label, names in (("all trained on", set(found) - set(task.exclude)), ("left out", set(task.exclude))):
        if names:
            total = np.mean([[found[n][0] * len(task.sets[n].z), *found[n]] for n in names], 0)
            print(f"| {label} | {total[0]:.2f} | {total[1]:.3f} | {total[2]:.2f} |")


def export(run: pathlib.Path) -> None:
    """The best weights of a run as the default."""
    from jaxprot.io.outputs import sha256
    from jaxprot.visnet import weights
    from jaxprot.weights import portable

    path = DEFAULT / "ai2bmd.safetensors"
    cfg, tensors = weights.read(run / "best.safetensors")
    header = portable.load(run / "best.safetensors")[1]
    told = {key: header[key] for key in ("step", "figures") if key in header}
    weights.save(path, cfg, tensors, experiment="ai2bmd/default", **told)
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    line = f'file = "default/{path.name}"\n'
    known = re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?'
    registry.write_text(re.sub(known, line + f'sha256 = "{sha256(path)}"\n', registry.read_text()))
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {told}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["errors", "export"])
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--most", type=int, help="conformations of each unit at most")
    args = parser.parse_args()

    import jax

    from jaxprot.cli.options import compilation_cache, keep_memory

    keep_memory()
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    if args.stage == "errors":
        errors(args.run, args.most)
    else:
        export(args.run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
