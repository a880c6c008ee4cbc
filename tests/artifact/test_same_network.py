"""What is loaded computes what was saved: the factory's arguments travel, and saving proves it."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forging import Forgery, take_apart
from refusals import refused
from timm.layers import LayerNorm, SelectAdaptivePool2d
from timm.models import get_model_input_config, save_for_hf
from torch import Tensor, nn

import vqzoo
from vqzoo.errors import UsageError, VqzooError
from vqzoo.models.create import bounded_construction

Vqzoo = Callable[..., Any]

WITH_ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "an activation by name": ("test_resnet", {"act_layer": "silu"}),
    "an activation as a class": ("test_resnet", {"act_layer": nn.Hardswish}),
    "torch's class beside timm's": ("test_vit", {"act_layer": nn.Tanh}),
    "classes alone are taken": ("mambaout_femto", {"act_layer": nn.ReLU, "num_classes": 2}),
    "norms": ("test_efficientnet", {"norm_layer": "groupnorm1", "act_layer": "relu"}),
    "a norm with an activation": ("test_resnet", {"norm_layer": "batchnorm2d"}),
    "a stride": ("test_resnet", {"output_stride": 8}),
    "channels": ("test_efficientnet", {"in_chans": 5}),
    "a pair": ("test_vit", {"img_size": (96, 64), "in_chans": 1, "global_pool": "avg"}),
    "flags": ("test_vit", {"qk_norm": True, "class_token": False, "global_pool": "avg"}),
    "a number": ("test_vit", {"init_values": 1e-3, "dynamic_img_size": True}),
    "null": ("test_vit", {"init_values": None, "drop_rate": 0.5}),
    "no effect": ("test_resnet", {"drop_path_rate": 0.1, "pretrained_strict": False}),
    "features": ("test_resnet", {"features_only": True, "out_indices": (1, 2)}),
    "layers": ("test_resnet", {"layers": (1, 2, 1, 1), "stem_width": 16}),
}


def trained(model: nn.Module) -> nn.Module:
    """The model with weights that leave no branch at zero, as training does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.rand(parameter.shape, generator=generator)
    return model.eval()


def outputs(model: nn.Module) -> list[Tensor]:
    size = get_model_input_config(model)["input_size"]
    images = torch.randn(1, *size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        result = model(images)
    return result if isinstance(result, list) else [result]


load = vqzoo.load  # tests have a fixture of the package's name


def small_of(model: nn.Module) -> vqzoo.CompressedModel:
    return vqzoo.compress(model, "rtn", layers="largest:2")


@pytest.mark.parametrize("case", WITH_ARGUMENTS)
def test_arguments_of_the_factory_travel(case: str, tmp_path: Path) -> None:
    name, arguments = WITH_ARGUMENTS[case]
    small = small_of(trained(timm.create_model(name, **arguments)))
    small.save(tmp_path / "a")
    expected = outputs(small.module)
    for mode in ("decoded", "codes"):
        loaded = outputs(vqzoo.load(tmp_path / "a", mode=mode))
        for result, reference in zip(loaded, expected, strict=True):
            torch.testing.assert_close(result, reference)


def test_plain_arguments_need_no_feature_and_others_do(tmp_path: Path) -> None:
    for folder, arguments, features in (
        ("plain", {"in_chans": 1, "num_classes": 3, "global_pool": "max"}, []),
        ("other", {"act_layer": "mish"}, ["model-arguments"]),
        ("pair", {"img_size": (96, 64)}, ["model-arguments"]),
    ):
        name = "test_vit" if folder == "pair" else "test_resnet"
        small_of(timm.create_model(name, **arguments)).save(tmp_path / folder)
        assert take_apart(tmp_path / folder).metadata["required_features"] == features


def test_what_changed_after_creation_is_recorded(tmp_path: Path) -> None:
    def reset(model: Any) -> None:
        model.reset_classifier(5, "max")

    def pooled(model: Any) -> None:
        model.global_pool = SelectAdaptivePool2d(pool_type="catavgmax", flatten=True)
        model.fc = nn.Linear(2 * model.num_features, 10)

    def linear(model: Any) -> None:
        model.fc = nn.Linear(model.num_features, 7)

    def headless(model: Any) -> None:
        model.fc = nn.Identity()

    for change in (reset, pooled, linear, headless):
        model = timm.create_model("test_resnet", num_classes=10)
        change(model)
        small = small_of(trained(model))
        small.save(tmp_path / change.__name__)
        loaded = vqzoo.load(tmp_path / change.__name__)
        assert torch.equal(outputs(loaded)[0], outputs(small.module)[0]), change.__name__
    model = timm.create_model("test_vit")
    model.set_input_size(img_size=96)
    small_of(trained(model)).save(tmp_path / "resized")
    assert outputs(vqzoo.load(tmp_path / "resized"))[0].shape == (1, 1000)


def relu6(model: Any) -> None:
    model.layer1[0].act1 = nn.ReLU6()


def epsilon(model: Any) -> None:
    model.layer2[0].bn2.eps = 0.1


def pooling(model: Any) -> None:
    model.global_pool.pool = nn.AdaptiveMaxPool2d(1)


def padding(model: Any) -> None:
    model.layer3[0].conv2.padding_mode = "circular"
    model.layer3[0].conv2._reversed_padding_repeated_twice = [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "module"),
    [
        (relu6, "layer1.0.act1"),
        (epsilon, "layer2.0.bn2"),
        (pooling, "global_pool.pool"),
        (padding, "layer3.0.conv2"),
    ],
)
def test_a_network_that_timm_would_rebuild_otherwise_is_not_saved(
    change: Callable[[Any], None], module: str, tmp_path: Path
) -> None:
    model = trained(timm.create_model("test_resnet", num_classes=10))
    change(model)
    with pytest.raises(VqzooError, match=f"differs first at {module}: ") as caught:
        small_of(model).save(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("test_vit", {"norm_layer": functools.partial(LayerNorm, eps=1e-3)}, "norm_layer"),
        ("test_vit", {"act_layer": type("Mine", (nn.ReLU,), {})}, "act_layer"),
        ("test_resnet", {"block_args": {"attn_layer": "se"}}, "block_args"),
    ],
)
def test_arguments_that_cannot_be_written_are_named(
    name: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small = small_of(timm.create_model(name, **arguments))
    with pytest.raises(UsageError, match=f"model argument {message}="):
        small.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_head_that_timm_cannot_build_is_named(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet")
    model.fc = nn.Sequential(nn.Linear(model.num_features, 7), nn.ReLU())
    with pytest.raises(UsageError, match=r"'fc\.weight'"):
        small_of(model).save(tmp_path / "a")


def test_a_folder_of_timms_keeps_its_arguments(vqzoo: Vqzoo, tmp_path: Path) -> None:
    model = trained(timm.create_model("test_resnet", num_classes=4, act_layer="silu", in_chans=1))
    save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    result = vqzoo("run", "local-dir:timm", "-m", "rtn", "-o", "format=int8", "--out", "a")
    assert result.exit_code == 0, result.output
    loaded = load(tmp_path / "a")
    assert isinstance(loaded.get_submodule("layer1.0.act1"), nn.SiLU)
    reference = outputs(model)[0]
    assert (outputs(loaded)[0] - reference).abs().max() < 0.05 * reference.abs().max()


def test_model_arguments_of_the_command_line(vqzoo: Vqzoo, tmp_path: Path) -> None:
    words = "img_size=[64,96] act_layer=silu init_values=1e-2 qk_norm=true class_token=False"
    words += " global_pool=avg norm_layer=rmsnorm"
    flags = [part for word in words.split() for part in ("--model-arg", word)]
    result = vqzoo("run", "test_vit", "--weights", "random", *flags, "-m", "rtn", "--out", "a")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["model_args"] == {
        "img_size": [64, 96],
        "act_layer": "silu",
        "init_values": 0.01,
        "qk_norm": True,
        "class_token": False,
        "global_pool": "avg",
        "norm_layer": "rmsnorm",
    }
    command = json.loads((tmp_path / "a/report.json").read_text())["command"]
    assert "--model-arg 'img_size=[64, 96]'" in command
    assert "--model-arg qk_norm=true" in command
    inspected = " ".join(vqzoo("inspect", "a").stdout.split())
    assert "Proven when it was written" in inspected
    assert "2 random images of 3×64×96; their outputs are equal" in inspected


@pytest.mark.parametrize(
    "flag", ["pretrained_cfg=x", "cache_dir=/tmp", "img_size=[4,[5,[6]]]", "in_chans=0"]
)
def test_arguments_no_artifact_may_set_are_refused(vqzoo: Vqzoo, tmp_path: Path, flag: str) -> None:
    result = vqzoo("run", "test_vit", "--weights", "random", "--model-arg", flag, "-m", "rtn")
    assert result.exit_code == 2
    assert flag.partition("=")[0] in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_method_whose_decoding_is_not_deterministic_writes_nothing(
    vqzoo: Vqzoo, tmp_path: Path
) -> None:
    (tmp_path / "moody.py").write_text(
        "import torch\n"
        "from vqzoo.plugin import Code, Floats, Quantizer, hookimpl\n"
        "class Moody(Quantizer):\n"
        "    name = 'moody'\n"
        "    def quantize(self, weight, options, context):\n"
        "        return Code(weight.shape, {'w': Floats(weight.half())})\n"
        "    def reconstruct(self, code, params):\n"
        "        return params['w'] * (1 + 0.1 * torch.rand(1))\n"
        "@hookimpl\n"
        "def vqzoo_quantizers():\n"
        "    return [Moody()]\n"
    )
    words = ["run", "test_resnet", "--weights", "random", "-m", "moody", "--out", "a"]
    result = vqzoo(*words, "--plugin", "moody.py")
    assert result.exit_code == 1
    assert "decodes to other values" in result.stderr
    assert not (tmp_path / "a").exists()


@pytest.fixture
def silu(tmp_path: Path) -> Forgery:
    small_of(timm.create_model("test_resnet", num_classes=10, act_layer="silu")).save(
        tmp_path / "silu"
    )
    return take_apart(tmp_path / "silu")


def test_the_feature_must_be_declared(silu: Forgery, tmp_path: Path) -> None:
    silu.metadata["required_features"] = []
    assert "does not declare" in refused(silu.seal(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", [5000, 5000, 5000, 5000]),
        ("stem_width", 4096),
        ("base_width", 1 << 20),
        ("act_layer", "no_such_layer"),
        ("act_layer", "x" * 200),
        ("layers", [[[1]]]),
        ("layers", [1] * 65),
        ("output_stride", 1 << 40),
        ("pretrained", True),
        ("model_name", "resnet18"),
        ("__class__", 1),
    ],
)
def test_arguments_of_strangers_are_bounded(
    name: str, value: Any, silu: Forgery, tmp_path: Path
) -> None:
    silu.config["model_args"] = {name: value}
    refused(silu.seal(tmp_path / "a"))


def test_construction_stops_at_its_bounds() -> None:
    with pytest.raises(VqzooError, match="far more modules"), bounded_construction(10, 1 << 40):
        timm.create_model("test_resnet")
    with pytest.raises(VqzooError, match="far more weights"), bounded_construction(1000, 1000):
        timm.create_model("test_resnet")
    with bounded_construction(1000, 1 << 30):
        timm.create_model("test_resnet")
