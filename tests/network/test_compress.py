"""`vqzoo.compress` does what `vqzoo run` does, and leaves the model as it was."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.data.calibration_data import open_calibration_data
from vqzoo.errors import NothingCompressed, PluginError, UsageError
from vqzoo.models.dense import find_model
from vqzoo.progress import SilentWatcher, Steps
from vqzoo.runs.recipe import make_recipe, parse_rule
from vqzoo.runs.run import run

NAME = "alexnet_mini.fmnist"


@pytest.fixture(scope="module")
def mini() -> nn.Module:
    return find_model(NAME, SilentWatcher()).module


def weights_of(folder: Path) -> bytes:
    """The weights file, without the two hashes that tell where the dense weights came from."""
    data = (folder / "vqzoo.safetensors").read_bytes()
    metadata = open_artifact(folder).metadata
    for digest in (metadata.config_sha256, metadata.record_sha256):
        data = data.replace(digest.encode(), b"")
    return data


RECIPES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "method": "pq", "ratio": 32, "layers": ("features.11", "classifier.6"),
            "calibrate": "fmnist", "calibration_images": 40,
        },
        {
            "method": "pq", "ratio": 32, "layers": ["features.11", "classifier.6"],
            "calibrate": "fmnist", "calibration_images": 40,
        },
    ),
    (
        {
            "method": "rtn", "options": {"format": "int3"}, "layers": ("all",), "seed": 5,
            "calibrate": "fmnist", "repair": "fmnist", "calibration_images": 100,
            "packing": "huffman",
        },
        {
            "method": "rtn", "format": "int3", "layers": "all", "seed": 5,
            "calibrate": "fmnist", "repair": "fmnist", "calibration_images": 100,
        },
    ),
    (
        {
            "rules": list(map(parse_rule, ("classifier.*=pq:k=16,d=4", "classifier.4=km:ratio=8"))),
            "repair": "fmnist", "calibration_images": 70,
        },
        {
            "method": {"classifier.*": ("pq", {"k": 16, "d": 4}), "classifier.4": (
                "km", {"ratio": 8})},
            "repair": "fmnist", "calibration_images": 70,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "arguments"), RECIPES)
def test_the_weights_are_those_of_the_same_run(
    recipe: dict[str, Any], arguments: dict[str, Any], mini: nn.Module, tmp_path: Path
) -> None:
    done = run(make_recipe({"model": NAME, "images": 2, **recipe}), SilentWatcher(),
               out=tmp_path / "run")  # fmt: skip
    small = vqzoo.compress(mini, **arguments)
    small.save(tmp_path / "saved", packing=recipe.get("packing", "bits"))
    assert weights_of(tmp_path / "saved") == weights_of(tmp_path / "run")
    records = done.record.layers
    assert [one.sqnr_db for one in records] == [layer.error.sqnr_db for layer in small.layers]
    assert [list(one.notes) for one in records] == [list(layer.notes) for layer in small.layers]
    if "repair" in recipe:
        assert done.record.repair is not None
        assert small.repaired is not None
        assert list(done.record.repair.biases) == list(small.repaired.biases)
        assert done.record.repair.divergence.after == small.repaired.divergence[1]
    state = vqzoo.load(tmp_path / "saved").state_dict()
    for key, tensor in small.module.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_transforms_of_a_rule_run_before_its_method_alone(tmp_path: Path) -> None:
    plugin = Path(vqzoo.__file__).parents[1] / "docs/examples/row_peaks.py"
    steps = [("row-peaks", {"power": 0.5}), ("rtn", {"format": "int4"})]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 8))
    small = vqzoo.compress(model, {"0": steps, "1": "km"}, plugins=[plugin])
    assert [[step.name for step in layer.transforms] for layer in small.layers] == [
        ["row-peaks"], [],
    ]  # fmt: skip
    assert [layer.method for layer in small.layers] == ["rtn", "km"]
    everywhere = vqzoo.compress(
        model, {"0": "km", "1": ["km"]}, transforms=["row-peaks"], plugins=[plugin]
    )
    assert [len(layer.transforms) for layer in everywhere.layers] == [1, 0]
    with pytest.raises(UsageError, match="empty list"):
        vqzoo.compress(model, {"0": []})


def test_given_batches_calibrate_as_a_specification_does(mini: nn.Module) -> None:
    data = open_calibration_data("fmnist", mini, images=40)
    batches = [(batch.images, batch.labels) for batch in data]
    last: dict[str, Any] = {"layers": "classifier.6", "ratio": 32}
    named = vqzoo.compress(
        mini, "pq", **last, calibrate="fmnist", repair="fmnist", calibration_images=40
    )
    given = vqzoo.compress(mini, "pq", **last, calibrate=batches, repair=iter(batches))
    plain = vqzoo.compress(mini, "pq", **last)
    for key, tensor in named.module.state_dict().items():
        assert torch.equal(tensor, given.module.state_dict()[key]), key
    assert not torch.equal(
        plain.module.get_parameter("classifier.6.weight"),
        named.module.get_parameter("classifier.6.weight"),
    )
    with pytest.raises(UsageError, match="choose at least 1"):
        vqzoo.compress(mini, "pq", calibrate="fmnist", calibration_images=0)


class Listening(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def layer_started(self, name: str, index: int, total: int) -> None:
        self.heard.append(f"{name} {index} of {total}")

    def note(self, layer: str, text: str) -> None:
        self.heard.append(f"{layer}: {text}")

    @contextmanager
    def images(self, text: str) -> Iterator[Steps]:
        yield lambda done, total: self.heard.append(f"{text} {done} of {total}")


def test_progress_tells_of_images_and_layers(mini: nn.Module) -> None:
    watcher = Listening()
    images = next(iter(open_calibration_data("fmnist", mini, images=8))).images
    vqzoo.compress(
        mini, "svd", layers="classifier.4", rank=1, calibrate=images, repair=images,
        progress=watcher,
    )  # fmt: skip
    assert watcher.heard[:3] == [
        "calibrating on the images given 8 of 8",
        "classifier.4: calibration may change nothing: svd does not declare that it uses it",
        "classifier.4 0 of 1",
    ]
    assert watcher.heard[-1] == "repairing on the images given 18 of 18"


FAILING = """
from vqzoo.plugin import Quantizer, hookimpl

class Failing(Quantizer):
    name = "failing"

    def quantize(self, weight, options, context):
        if weight.shape[0] == 8:
            raise ZeroDivisionError("eight rows")
        return context.quantize("binary", weight, {}).code

    def reconstruct(self, code, params):
        raise NotImplementedError

    def decode(self, code, params, out=None):
        from vqzoo.plugin.manager import installed_plugins
        return installed_plugins().quantizers.get("binary").item.decode(code, params, out)

    def fit(self, m, n, options, note):
        return options

    def candidates(self, m, n):
        return []

    def stored_bits(self, m, n, options):
        return m * n

@hookimpl
def vqzoo_quantizers():
    return [Failing()]
"""


def test_keep_going_leaves_a_layer_dense_whose_plugin_fails(tmp_path: Path) -> None:
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILING)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 8))
    with pytest.raises(PluginError, match=r"ZeroDivisionError: eight rows \(keep_going=True "):
        vqzoo.compress(model, "failing", plugins=[plugin])
    small = vqzoo.compress(model, "failing", plugins=[plugin], keep_going=True)
    assert [layer.layer.name for layer in small.layers] == ["0"]
    assert small.skipped["1"].startswith("failed: failing (plugin file:failing.py) on layer 1")
    assert torch.equal(small.module[1].weight, model[1].weight)
    with pytest.raises(NothingCompressed, match="eight rows"):
        vqzoo.compress(model, "failing", layers="1", plugins=[plugin], keep_going=True)


class CopiesItself(nn.Module):
    """A module whose copies come about in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16, bias=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CopiesItself":
        made = CopiesItself()
        made.load_state_dict(self.state_dict())
        return made

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Tied(nn.Module):
    """Two layers of one weight, one in half precision, and one whose memory lies otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(24, 24)
        self.second = nn.Linear(24, 24)
        self.second.weight = self.first.weight
        self.narrow = nn.Linear(24, 24).half()
        self.lasting = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        self.itself = CopiesItself()


def test_the_copy_keeps_ties_dtypes_and_layouts_and_the_model_its_weights() -> None:
    torch.manual_seed(0)
    model = Tied().train()
    before = copy.deepcopy(model.state_dict())
    small = vqzoo.compress(model, "km", layers="all", k=4)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    module = small.module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.second.weight is module.first.weight
    assert module.narrow.weight.dtype == torch.float16
    assert module.lasting.weight.is_contiguous(memory_format=torch.channels_last)
    for name in ("first", "narrow", "lasting", "itself.layer"):
        assert len(module.get_submodule(name).weight.unique()) < 24 * 5, name
    pointers = {parameter.data_ptr() for parameter in model.parameters()}
    assert not pointers & {parameter.data_ptr() for parameter in module.parameters()}


def test_the_record_and_the_object_say_the_same_of_layers(mini: nn.Module, tmp_path: Path) -> None:
    recipe = {"model": NAME, "images": 2, "method": "km", "options": {"k": 4}, "layers": ("all",)}
    run(make_recipe(recipe), SilentWatcher(), out=tmp_path / "a")
    record = json.loads((tmp_path / "a" / "report.json").read_text())
    small = vqzoo.compress(mini, "km", layers="all", k=4)
    assert record["skipped"] == small.skipped
    for row, layer in zip(record["layers"], small.layers, strict=True):
        assert (row["name"], row["options"]) == (layer.layer.name, layer.options)
        assert row["row_sqnr_db"] == layer.error.row_sqnr_db
