"""The wheel holds vqzoo and its plugins, and nothing that only maintainers need."""

import subprocess
import sys
import zipfile
from pathlib import Path

import vqzoo

ROOT = Path(vqzoo.__file__).parents[1]


def test_the_wheel_holds_packages_only(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"vqzoo", *(path.name for path in (ROOT / "plugins").glob("vqzoo_*"))}
    for model in ("alexnet_mini", "mobilenet_mini", "vit_mini"):
        assert f"vqzoo/models/assets/{model}.fmnist.safetensors" in names
    files = zipfile.ZipFile(wheel).infolist()
    assert sum(file.file_size for file in files if "/assets/" in file.filename) < 25_000_000
    assert "vqzoo/zoo_configs/alexnet-pq-16x.yaml" in names
    assert not [name for name in names if "train_embedded" in name or "embed_fmnist" in name]
