"""Train and export the shipped potential, and test it on units that it has not seen.

    JAXPROT_UNITS=data/units jaxprot train experiments/ai2bmd/default.py -o runs/ai2bmd
    python scripts/train_default_ai2bmd.py errors --run runs/ai2bmd
    python scripts/train_default_ai2bmd.py export --run runs/ai2bmd

and, for generalisation, a copy that never saw three of the amino acids:

    jaxprot train experiments/ai2bmd/default.py -o runs/without --set 'task.exclude=[thr, gln, tyr]'
    python scripts/train_default_ai2bmd.py errors --run runs/without

`errors` prints mean absolute errors on all conformations that were held back (whole cells of φ and ψ), unit by unit;
units that were left out are marked, and all of their conformations count. `--data` names other folders or files than
those of the training. `near` tells how far held-back conformations are from the nearest one that was trained on (root
mean square of the distances of atoms after superposition), as a test is worth no more than that. `export` writes
`jaxprot/weights/default/ai2bmd.safetensors`, with the names of the units that it learnt from in its header, and its
hash into the registry.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DEFAULT = ROOT / "jaxprot" / "weights" / "default"


def task_of(run: pathlib.Path, data: list[str] | None) -> Any:
    """What a run trained on and held back, of other data if they are given."""
    from jaxprot.train.config import read_config

    task = read_config(run / "config.yaml").task
    return dataclasses.replace(task, data=tuple(data)) if data else task


def near(run: pathlib.Path, data: list[str] | None, most: int | None) -> None:
    """Table of distances of held-back conformations to the nearest one that was trained on."""
    import numpy as np

    task = task_of(run, data)
    print("| unit | held back | median to the nearest trained on, Å | nine tenths within, Å |\n|---|---|---|---|")
    for name, one in task.sets.items():
        if name in task.exclude:
            continue
        held = task.held_back(name)
        trained = np.setdiff1d(np.arange(len(one.energy)), held)
        if most is not None and len(held) > most:
            held = held[np.linspace(0, len(held) - 1, most).astype(int)]
        found = [distances(one.positions[row], one.positions[trained]).min() for row in held]
        middle, far = np.percentile(found, [50, 90])
        print(f"| {name.upper()} | {len(held)} | {middle:.2f} | {far:.2f} |", flush=True)


def distances(one: Any, others: Any) -> Any:
    """(n,) root mean squares of the distances of atoms of (A, 3) to those of (n, A, 3), turned onto each other."""
    import numpy as np

    one, others = (np.asarray(x, np.float64) - np.mean(x, -2, keepdims=True) for x in (one, others))
    product = np.einsum("ai,nab->nib", one, others)
    values = np.linalg.svd(product, compute_uv=False)
    values[:, 2] *= np.sign(np.linalg.det(product))
    square = (one**2).sum() + (others**2).sum((1, 2)) - 2 * values.sum(-1)
    return np.sqrt(np.maximum(square, 0) / len(one))


def errors(run: pathlib.Path, data: list[str] | None, most: int | None) -> None:
    """Table of mean absolute errors."""
    import numpy as np
    from flax import nnx

    from jaxprot.visnet import weights

    task = task_of(run, data)
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


def export(run: pathlib.Path, data: list[str] | None) -> None:
    """The best weights of a run as the default."""
    from jaxprot.io.outputs import sha256
    from jaxprot.visnet import weights
    from jaxprot.weights import portable

    path = DEFAULT / "ai2bmd.safetensors"
    cfg, tensors = weights.read(run / "best.safetensors")
    header = portable.load(run / "best.safetensors")[1]
    told = {key: header[key] for key in ("step", "figures") if key in header}
    units = task_of(run, data).learnt()
    weights.save(path, cfg, tensors, experiment="ai2bmd/default", units=units, **told)
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    line = f'file = "default/{path.name}"\n'
    known = re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?'
    registry.write_text(re.sub(known, line + f'sha256 = "{sha256(path)}"\n', registry.read_text()))
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {told}, units {', '.join(units or ())}")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["errors", "near", "export"])
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--data", nargs="+", metavar="DIR", help="folders or files of units, instead of the training's")
    parser.add_argument("--most", type=int, help="conformations of each unit at most")
    args = parser.parse_args(argv)

    from jaxprot.core.errors import JaxprotError

    try:
        if args.stage == "near":
            near(args.run, args.data, args.most)
        elif args.stage == "export":
            export(args.run, args.data)
        else:
            import jax

            from jaxprot.cli.options import compilation_cache, keep_memory

            keep_memory()
            jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
            errors(args.run, args.data, args.most)
    except (JaxprotError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
