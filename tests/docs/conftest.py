"""The working folder of a reader of the docs: images, artifacts, a Hub, and no network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
import timm
import torch
from huggingface_hub import constants
from pages import ROOT
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from vqzoo.data import fmnist
from vqzoo.numerics.clustering import kmeans
from vqzoo.numerics.clustering.metric_kmeans import metric_kmeans
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run
from vqzoo.testing.hub.client import use_hub
from vqzoo.testing.hub.server import HubServer

_IMAGES = 200
_ITERATIONS = 3

HOOK = """

from vqzoo.plugin import hookimpl


@hookimpl
def vqzoo_quantizers():
    return [{class_name}()]
"""
RECIPE = "model: test_resnet\ncheckpoint: mine.safetensors\nmethod: {}\noptions: {{k: 16}}\n"


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the embedded data set to its first images."""
    few = fmnist.LabelledImages(*fmnist.test_split()[torch.arange(_IMAGES)])
    monkeypatch.setattr(fmnist, "test_split", lambda: few)


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce Lloyd's iterations, which take most of the time of pq on the embedded network."""
    train = kmeans.train

    def train_a_little(points, k, weights, seed, iterations, *further, **options):  # type: ignore[no-untyped-def]
        return train(points, k, weights, seed, min(iterations, _ITERATIONS), *further, **options)

    monkeypatch.setattr(kmeans, "train", train_a_little)
    monkeypatch.setitem(metric_kmeans.__kwdefaults__, "rounds", 1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages assume."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "docs/examples", folder, dirs_exist_ok=True)
    for name in ("mymethod", "sketch"):
        write_plugin_file(folder / f"{name}.py", name)
    for index, name in enumerate(ImageNetInfo().label_names()[:10]):
        (folder / "val" / name).mkdir(parents=True)
        Image.new("RGB", (64, 48), (20 * index, 90, 30)).save(folder / "val" / name / "one.png")
    torch.manual_seed(5)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "mine.safetensors")
    (folder / "recipes").mkdir()
    for name, method in (("alexnet-pq-16x", "pq"), ("alexnet-km-16x", "km")):
        (folder / "recipes" / f"{name}.yaml").write_text(RECIPE.format(method))
    mine = {"model": "test_resnet", "checkpoint": folder / "mine.safetensors", "layers": ("all",)}
    alexnet = {"model": "alexnet_mini.fmnist", "layers": ("classifier.6",), "images": 10}
    for name, fields in (("my-artifact", mine), ("alexnet_mini.fmnist-pq-1a2b3c4d", alexnet)):
        recipe = make_recipe({**fields, "method": "pq", "options": {"k": 16, "d": 4}})
        run(recipe, SilentWatcher(), out=folder / name)
    return folder


def write_plugin_file(path: Path, name: str) -> None:
    """Write the method of `vqzoo new-plugin` as a single file."""
    source = ROOT / "vqzoo/scaffold/template/src/package/quantizer.py.tmpl"
    words = {"name": name, "package": name, "class_name": name.capitalize()}
    text = Template(source.read_text()).substitute(words)
    path.write_text(text + HOOK.format(class_name=name.capitalize()))


@pytest.fixture
def reader(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder to work in, and a Hub on loopback; nothing can be downloaded."""
    folder = Path(shutil.copytree(prepared, tmp_path / "reader"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with HubServer() as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        monkeypatch.setattr("vqzoo.models.dense.is_reachable", lambda cfg: False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield folder
