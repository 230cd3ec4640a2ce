"""Writes small wheels as pip and uv take them."""

import zipfile
from pathlib import Path


def write(folder: Path, package: str, files: dict[str, bytes], requires_python: str = ">=3.0") -> Path:
    """A wheel of `name==version` that holds these files."""
    name, _, version = package.partition("==")
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {requires_python}\n"
    tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held = {
        **files,
        f"{info}/METADATA": metadata + "Requires-Dist: no-such-package-of-anyone\n",
        f"{info}/WHEEL": tags,
    }
    record = "".join(f"{member},,\n" for member in [*held, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**held, f"{info}/RECORD": record}.items():
            archive.writestr(member, content)
    return path
