"""What a prediction of RMSF-net rests on: the map or the model, and which parts of them.

    python scripts/rmsfnet_interpret.py --model model.pdb --map map.mrc --output runs/interpret
    python scripts/rmsfnet_interpret.py --model model.pdb --weights rmsfnet:pdb --boxes 2 --output runs/interpret

Three measures, each of the predicted log10(RMSF / Å + 1) of the voxels that hold atoms, summed by channel:

- gradient times input: the derivative of the sum over a box's core by each input voxel, times that voxel. The voxel
  with a box's largest density, which normalises the box, is left out: its derivative holds the whole box's.
- occlusion: mean absolute change when a cube of `--cube` voxels is 0 in one channel. A cube with a box's largest
  density changes the normalisation of the box too, as it would in the network.
- removal: the same when the whole channel is 0, and the correlation of what is then predicted with the full prediction.

Occlusion takes up to 1024 evaluations per box of two channels, so it is done for `--boxes` boxes, those with the
most atoms (0: all). Written are interpret.json, gradient_CHANNEL.mrc (summed over boxes), occlusion_CHANNEL.mrc (mean
over the boxes that were occluded, 0 where there is none), and interpret.png.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BOX, CORE = 40, 10
_MARGIN = (BOX - CORE) // 2


class Network:
    """Prediction and gradient of the scored voxels of boxes.

    Args:
      predictor: the network with its weights.
    """

    def __init__(self, predictor: Any):
        import jax
        import jax.numpy as jnp

        apply, leaves = predictor.pure()
        self.batch = predictor.batch

        def total(boxes: Any, mask: Any) -> Any:
            return jnp.sum(jnp.where(mask, apply(leaves, boxes), 0))

        self._apply = jax.jit(lambda boxes: apply(leaves, boxes))
        self._gradient = jax.jit(jax.grad(total))

    def cores(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 10, 10, 10) predictions of (n, 40, 40, 40, c) boxes, in batches of one shape."""
        out = []
        for start in range(0, len(boxes), self.batch):
            rows = np.resize(np.arange(start, min(start + self.batch, len(boxes))), self.batch)
            out.append(np.asarray(self._apply(boxes[rows]))[: len(boxes) - start])
        return np.concatenate(out)

    def gradient_times_input(self, box: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(40, 40, 40, c) of one box; `mask` (10, 10, 10) tells which voxels of the core count."""
        attribution = np.array(self._gradient(box[None], mask[None])[0]) * box
        # The network divides the first channel by its largest voxel, whose derivative therefore gathers all others'.
        attribution[(*np.unravel_index(np.argmax(box[..., 0]), box.shape[:3]), 0)] = 0
        return attribution


def cubes(box: np.ndarray, edge: int, channel: int) -> list[tuple[slice, ...]]:
    """Cubes that tile a box, where the channel holds anything at all."""
    corners = np.ndindex((-(-BOX // edge),) * 3)
    found = [tuple(slice(edge * i, edge * i + edge) for i in corner) for corner in corners]
    return [cube for cube in found if box[(*cube, channel)].any()]


def occlusion(network: Network, box: np.ndarray, mask: np.ndarray, edge: int, full: np.ndarray) -> np.ndarray:
    """(40, 40, 40, c) mean absolute change over the core's scored voxels when the cube around each voxel is 0."""
    out = np.zeros(box.shape, np.float32)
    for channel in range(box.shape[-1]):
        todo = cubes(box, edge, channel)
        for start in range(0, len(todo), network.batch):
            chosen = todo[start : start + network.batch]
            hidden = np.repeat(box[None], len(chosen), 0)
            for row, cube in enumerate(chosen):
                hidden[(row, *cube, channel)] = 0
            for cube, core in zip(chosen, network.cores(hidden), strict=True):
                out[(*cube, channel)] = np.abs(core - full)[mask].mean()
    return out


def paste(out: np.ndarray, values: np.ndarray, corner: np.ndarray) -> None:
    """Adds a box (40, 40, 40) to a grid, from the first voxel of its core."""
    start = corner - _MARGIN
    low, high = np.clip(start, 0, out.shape), np.clip(start + BOX, 0, out.shape)
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out[there] += values[tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))]


def shares(values: list[float]) -> list[float | None]:
    """Of their sum; None where that is 0."""
    return [value / sum(values) if sum(values) > 0 else None for value in values]


def interpret(
    predictor: Any, boxes: Any, occupied: np.ndarray, edge: int, most: int, report: Callable[[int, int], None]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Figures by channel, and the attribution maps on the grid (z, y, x) of the boxes.

    Args:
      predictor: the network with its weights.
      boxes: what it reads.
      occupied: (z, y, x) bool, voxels that count.
      edge: of the occluded cubes in voxels.
      most: boxes that are occluded, 0 for all.
      report: called with (boxes done, boxes in all).
    """
    from jaxprot.core import metrics

    names = {"both": ["map", "model"], "map": ["map"], "model": ["model"]}[boxes.first]
    network, shape = Network(predictor), boxes.grid.shape
    maps = {f"{kind}_{name}": np.zeros(shape, np.float32) for kind in ("gradient", "occlusion") for name in names}
    covered = np.zeros(shape, np.float32)
    padded = np.pad(occupied, [(0, CORE)] * 3)
    counts = [padded[tuple(slice(c, c + CORE) for c in corner)].sum() for corner in boxes.corners]
    chosen = set(np.argsort(counts, kind="stable")[::-1][: most or len(boxes)].tolist())
    predicted: list[np.ndarray] = []
    removed: dict[str, list[np.ndarray]] = {name: [] for name in names}
    size, signed, hidden = (np.zeros(len(names)) for _ in range(3))
    for number, corner in enumerate(boxes.corners):
        box = boxes.cut(np.array([number]))[0]
        mask = padded[tuple(slice(c, c + CORE) for c in corner)]
        without = [box * (np.arange(len(names)) != channel) for channel in range(len(names))]
        full, *others = network.cores(np.stack([box, *without]).astype(np.float32))
        predicted.append(full[mask])
        for name, other in zip(names, others, strict=True):
            removed[name].append(other[mask])
        gradient = network.gradient_times_input(box, mask)
        size += np.abs(gradient).sum((0, 1, 2))
        signed += gradient.sum((0, 1, 2))
        change = occlusion(network, box, mask, edge, full) if number in chosen else None
        for channel, name in enumerate(names):
            paste(maps[f"gradient_{name}"], gradient[..., channel], corner)
            if change is not None:
                paste(maps[f"occlusion_{name}"], change[..., channel], corner)
        if change is not None:
            paste(covered, np.ones(box.shape[:3], np.float32), corner)
            hidden += change.sum((0, 1, 2)) / edge**3
        report(number + 1, len(boxes))
    for name in names:
        maps[f"occlusion_{name}"] /= np.maximum(covered, 1)
    whole = np.concatenate(predicted)
    figures: dict[str, Any] = {"voxels": len(whole), "boxes": len(boxes), "occluded_boxes": len(chosen), "cube": edge}
    for channel, name in enumerate(names):
        less = np.concatenate(removed[name])
        agreement = float(metrics.pearson(less, whole))
        figures[name] = {
            "gradient_share": shares(size.tolist())[channel],
            "gradient_sum": float(signed[channel]),
            "occlusion_share": shares(hidden.tolist())[channel],
            "removal_change": float(np.abs(less - whole).mean()),
            "removal_correlation": agreement if np.isfinite(agreement) else None,
        }
    return figures, maps


def picture(figures: dict[str, Any], maps: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Each map, summed along z, and the shares of the channels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in ("map", "model") if name in figures]
    figure = Figure(figsize=(3.4 * 3, 3.0 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for axis, kind in zip(row, ("gradient", "occlusion"), strict=False):
            flat = maps[f"{kind}_{name}"].sum(0)
            limit = float(np.percentile(np.abs(flat), 99.5)) or 1.0
            low, colours = (-limit, "RdBu_r") if kind == "gradient" else (0.0, "magma")
            drawn = axis.imshow(flat, origin="lower", cmap=colours, vmin=low, vmax=limit)
            figure.colorbar(drawn, ax=axis, shrink=0.8)
            axis.set_title(f"{name}: {'gradient x input' if kind == 'gradient' else kind}", fontsize=9)
            axis.set_xlabel("x (voxels of 1.5 Å)", fontsize=8)
            axis.set_ylabel("y", fontsize=8)
        kinds = ("gradient_share", "occlusion_share")
        row[2].bar(["gradient", "occlusion"], [figures[name][kind] or 0 for kind in kinds], color="#4477aa")
        row[2].set_ylim(0, 1)
        row[2].set_title(f"{name}: share of both channels", fontsize=9)
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="PDB or mmCIF file")
    parser.add_argument("--map", type=pathlib.Path, help="MRC or CCP4 map; not for weights of a model alone")
    parser.add_argument("--origin", choices=["sum", "header", "nstart"], default="sum", help="where the map is")
    parser.add_argument("--voxel", type=float, help="edge of a voxel (Å), for a map whose header does not tell it")
    parser.add_argument("--weights", default="rmsfnet", help="name or file")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--cube", type=int, default=5, help="edge of the occluded cubes in voxels")
    parser.add_argument("--boxes", type=int, default=4, help="boxes that are occluded, 0 for all")
    args = parser.parse_args(argv)
    if not 1 <= args.cube <= BOX:
        parser.error(f"--cube {args.cube}: give 1 to {BOX}")

    import jax

    from jaxprot.cli.options import compilation_cache
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.maps import read_map, write_map
    from jaxprot.io.outputs import atomic_path, write_json
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import featurize, predict
    from jaxprot.weights import registry

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    try:
        path, _ = registry.resolve(args.weights, "rmsfnet")
        predictor = predict.load(path)
        structure = read_structure(args.model)
        volume = None if args.map is None else read_map(args.map, args.origin, voxel=args.voxel)
        boxes = predictor.boxes(structure, volume)
    except JaxprotError as error:
        parser.error(str(error))

    def report(done: int, total: int) -> None:
        print(f"box {done} of {total}", file=sys.stderr, flush=True)

    occupied = featurize.atom_map(structure, boxes.grid)
    figures, maps = interpret(predictor, boxes, occupied, args.cube, args.boxes, report)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, values in maps.items():
        write_map(boxes.grid.with_data(values, name), args.output / f"{name}.mrc", label=f"RMSF-net: {name}")
    with atomic_path(args.output / "interpret.png") as temporary:
        picture(figures, maps, temporary)
    write_json(args.output / "interpret.json", {"weights": args.weights, **figures})
    print("| channel | gradient share | occlusion share | change without it | r without it |")
    print("|---|---|---|---|---|")
    for name in ("map", "model"):
        if name in figures:
            row = figures[name].values()
            share, _, hidden, change, agreement = ["-" if value is None else f"{value:.3f}" for value in row]
            print(f"| {name} | {share} | {hidden} | {change} | {agreement} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
