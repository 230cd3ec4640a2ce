"""Train and export the shipped representation.

    python scripts/massa_apart.py --chains structures/train.npz --output apart.txt tasks/remote_homology.csv.gz ...
    export JAXPROT_APART=apart.txt JAXPROT_PROTEINS=structures/train.npz:tasks/remote_homology.csv.gz
    jaxprot train experiments/massa/default.py -o runs/massa
    python scripts/train_default_massa.py --run runs/massa

Writes `jaxprot/weights/default/massa.safetensors` (the backbone and the heads of residue types and of local structure;
those of GO terms, motifs, domains and regions, which nothing trained, are left as they began) and its hash into the
registry. How well it does on tasks: `scripts/massa_downstream.py`.
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


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the run")
    args = parser.parse_args(argv)

    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import sha256
    from jaxprot.massa import weights
    from jaxprot.train.config import read_config
    from jaxprot.weights import portable

    try:
        task = read_config(args.run / "config.yaml").task
        tensors, header = portable.load(args.run / "best.safetensors")
    except (JaxprotError, FileNotFoundError) as error:
        parser.error(str(error))
    path = DEFAULT / "massa.safetensors"
    told = {key: header[key] for key in ("step", "figures", "untrained") if key in header}
    weights.save(path, task.sizes, tensors, experiment="massa/default", embedder="physchem", **told)
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    line = f'file = "default/{path.name}"\n'
    known = re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?'
    text, count = re.subn(known, line + f'sha256 = "{sha256(path)}"\n', registry.read_text())
    if not count:
        parser.error(f"{registry}: no entry with {line.strip()}")
    registry.write_text(text)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
