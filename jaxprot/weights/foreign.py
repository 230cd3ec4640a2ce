"""Files of weights that people have at hand beside the ones that jaxprot reads, and what to take instead of each."""

import re
from collections.abc import Iterable
from pathlib import Path

_INSTEAD = "--weights proteinmpnn:{name} (`jaxprot weights list` shows the others), or the published .pt file"


def of_tensors(names: Iterable[str]) -> str:
    """What a checkpoint is that no system reads, and what to use instead; empty if it is none of these.

    Args:
      names: of its tensors.
    """
    names = set(names)
    if not any(name.startswith("context_encoder_layers.") for name in names):
        return ""
    packs = any(name.startswith("features.dec_edge_embedding") for name in names)
    what = (
        "LigandMPNN's packer of side chains (ligandmpnn_sc_*)"
        if packs
        else "LigandMPNN's own network (ligandmpnn_v_32_*), which reads the atoms of ligands"
    )
    return (
        f"{what}; jaxprot does not have this network; to design or score sequences use "
        f"{_INSTEAD.format(name='v_48_020')} (LigandMPNN's proteinmpnn_v_48_*.pt and solublempnn_v_48_*.pt load, too)"
    )


def of_pickle(path: Path, head: bytes) -> str:
    """What a pickle is that is not PyTorch's, and what to use instead.

    It is told by its first bytes. It is never unpickled, since a pickle is a program.

    Args:
      path: the file, for its name.
      head: its first bytes.
    """
    if b"protein_mpnn/~/" not in head:
        return (
            "a Python pickle that is not PyTorch's; it is not opened, since a pickle can run code; use the published "
            ".pt, .ckpt or .safetensors file instead"
        )
    named = re.fullmatch(r"v_48_0(02|10|20|30)", path.stem)
    return (
        "a pickle of ColabDesign, which holds ProteinMPNN's weights in a layout of its own; it is not opened, since a "
        f"pickle can run code; use {_INSTEAD.format(name=named[0] if named else 'v_48_020')}"
    )
