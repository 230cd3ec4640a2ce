"""The arrows between packages, and what may stand where: read off the syntax trees, nothing is imported."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxprot"

# package -> packages of jaxprot that it may import (itself apart)
GENERIC = {"core", "io", "ops", "plots", "nn", "weights"}
ENGINES = {"train", "md", "ot", "scale"}
ARROWS = {
    "core": set(),
    "examples": {"core"},
    "io": {"core"},
    "ops": {"core"},
    "plots": {"core"},
    "nn": {"core", "io", "ops", "plots"},
    "weights": {"core", "io", "ops", "plots"},
    "train": GENERIC,
    "md": GENERIC,
    "ot": GENERIC,
    "scale": GENERIC,
    **{system: GENERIC | ENGINES for system in ("proteinmpnn", "visnet", "esm2", "rmsfnet", "cryostar")},
    "thermompnn": GENERIC | ENGINES | {"proteinmpnn"},
    "ai2bmd": GENERIC | ENGINES | {"visnet"},
    "massa": GENERIC | ENGINES | {"esm2"},
}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex", "grain"}
NO_JAX = {"core", "io", "plots", "examples"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        yield pytest.param(path, relative.parts[0] if len(relative.parts) > 1 else "", id=relative.as_posix())


def imports(tree: ast.AST, path: Path):
    """(dotted name, line) of everything imported, also inside functions; `if TYPE_CHECKING:` blocks are left out."""
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ("jaxprot", *path.relative_to(PACKAGE).with_suffix("").parts)[: -node.level]
                base = ".".join((*parts, base)) if base else ".".join(parts)
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


@pytest.mark.parametrize(("path", "package"), list(modules()))
def test_module_keeps_to_its_place(path, package):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = []
    for name, line in imports(tree, path):
        parts = name.split(".")
        if parts[0] == "jaxprot" and package in ARROWS and len(parts) > 1:
            target = parts[1]
            if target != package and (PACKAGE / target).is_dir() and target not in ARROWS[package]:
                wrong.append(f"line {line}: {package} imports {target}")
        if parts[0] in JAX and package in NO_JAX:
            wrong.append(f"line {line}: {parts[0]} in {package}")
        if parts[0] == "jax_md" and package != "md":
            wrong.append(f"line {line}: jax_md outside md")
        if parts[0] == "ott" and package != "ot":
            wrong.append(f"line {line}: ott outside ot")
        if parts[0] == "ray" and package != "scale":
            wrong.append(f"line {line}: ray outside scale")
        if parts[0] in ("torch", "torchvision", "pytorch_lightning", "lightning"):
            wrong.append(f"line {line}: {parts[0]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "jit" and ast.unparse(node.value).split(".")[-1] == "nnx":
            wrong.append(f"line {node.lineno}: nnx.jit (ten times slower than jax.jit on split leaves)")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and package != "cli":
            wrong.append(f"line {node.lineno}: print outside cli")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_its_place():
    found = {item.name for item in PACKAGE.iterdir() if item.is_dir() and any(item.glob("*.py"))}
    assert found <= set(ARROWS) | {"cli"}


def test_no_file_is_too_long():
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 800}
    assert not long
