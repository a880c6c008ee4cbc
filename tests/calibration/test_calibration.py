"""Inputs of layers on calibration images, and what is made of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import vqzoo
from vqzoo.calibration.layer_inputs import layer_inputs
from vqzoo.calibration.repair import repair
from vqzoo.compression.decode import decode
from vqzoo.compression.layer import compress_layer
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan, MethodChoice
from vqzoo.compression.view import compressible_layers
from vqzoo.compression.work import LayerInput
from vqzoo.data.batches import Batch
from vqzoo.plugin.manager import installed_plugins
from vqzoo.plugin.second_order import SecondOrder
from vqzoo.progress import SilentProgress, SilentWatcher
from vqzoo.runs.recipe import make_recipe, parse_rule
from vqzoo.runs.run import run

PLUGINS = installed_plugins()


def batches(shape: tuple[int, ...], images: int = 12) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    each = [torch.randn(4, *shape, generator=generator) for _ in range(images // 4)]
    return [Batch(x, None) for x in each]


class Net(nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 2), dilation=2, groups=2)
        self.same = nn.Conv2d(6, 4, 3, padding="same")
        self.line = nn.Conv1d(4, 5, 3, padding=1)
        self.dense = nn.Linear(5, 7)
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.grouped(x).relu()).flatten(2)
        out: Tensor = self.dense(self.line(x).movedim(1, 2))
        return out


def test_rows_are_what_the_layers_multiply() -> None:
    torch.manual_seed(0)
    model = Net()
    layers, _ = compressible_layers(model)
    outputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    for name, kept in outputs.items():
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, kept=kept: kept.append(out)
        )
    images = batches((4, 11, 9))
    found = layer_inputs(model, layers, images, 12)
    assert set(found) == {"grouped", "same", "line", "dense"}
    for layer in layers[:4]:
        module = model.get_submodule(layer.name)
        n = layer.matrix_shape[1]
        assert found[layer.name].shape[1] == n
        channel = -1 if layer.kind == "linear" else 1
        seen = torch.cat([o.movedim(channel, 0).flatten(1) for o in outputs[layer.name]], 1)
        matrix = module.weight.reshape(-1, n)
        bias = module.bias
        per_group = len(matrix) // layer.groups
        for row in found[layer.name][:20]:
            made = matrix @ row + bias
            gaps = [
                (seen[g : g + per_group] - made[g : g + per_group, None]).abs().amax(0).min()
                for g in range(0, len(matrix), per_group)
            ]
            assert min(gaps) < 1e-4


def test_inputs_smaller_than_the_kernel_and_values_that_are_not_finite() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 5, padding="same"), nn.Flatten(), nn.Linear(27, 2))
    layers, _ = compressible_layers(model)
    images = torch.ones(8, 2, 3, 3)
    images[3, 0, 1, 1] = torch.inf
    found = layer_inputs(model, layers, [Batch(images, None)], 8)
    conv = found["0"].view(-1, 2, 5, 5)
    assert {int(patch.sum()) for patch in conv} == {18}
    assert set(conv.unique().tolist()) == {0, 1}
    assert all(len(inputs) and inputs.isfinite().all() for inputs in found.values())


def test_the_network_is_left_as_it_was_and_draws_repeat() -> None:
    model = timm.create_model("test_resnet").train()
    layers, _ = compressible_layers(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = batches(model.pretrained_cfg["input_size"])
    state = torch.random.get_rng_state()
    first = layer_inputs(model, layers, images, 12, seed=3)
    again = layer_inputs(model, layers, images, 12, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    for name, inputs in first.items():
        assert torch.equal(inputs, again[name])
        assert len(inputs) <= 4096


@pytest.mark.parametrize("method", PLUGINS.quantizers.names())
def test_what_a_built_in_method_declares_of_calibration_is_true(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(64, 96)
    inputs = torch.randn(500, 64, generator=generator) * torch.logspace(-1.5, 1, 64)
    options = {"k": 8} if "k" in PLUGINS.quantizers.get(method).item.Options.model_fields else {}
    plan = LayerPlan(compressible_layers(layer)[0][0], MethodChoice(method, options))

    def decoded(statistics: Statistics | None) -> Tensor:
        given = LayerInput(plan, layer.weight, statistics, SilentProgress())
        compressed, _ = compress_layer(given, plugins=PLUGINS, seed=0, device=torch.device("cpu"))
        return decode(compressed.compressed, PLUGINS)

    hessian = (inputs.T @ inputs / 500)[None]
    item, plain = PLUGINS.quantizers.get(method).item, decoded(None)
    assert item.calibrated is not torch.equal(decoded(Statistics(inputs=inputs)), plain)
    second_order = SecondOrder((hessian,), torch.ones(96))
    assert item.second_order is not torch.equal(decoded(Statistics(None, second_order)), plain)


class Notes(SilentWatcher):
    """Keeps what is noted of layers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def note(self, layer: str, text: str) -> None:
        self.heard.append((layer, text))


def test_a_method_that_does_not_declare_calibration_is_named_once(tmp_path: Path) -> None:
    recipe = make_recipe(
        {
            "model": "alexnet_mini.fmnist", "method": "svd", "images": 2, "options": {"rank": 2},
            "rules": (parse_rule("classifier.4=km:k=2"),), "calibrate": "fmnist",
            "calibration_images": 8,
        }
    )  # fmt: skip
    watcher = Notes()
    run(recipe, watcher, out=tmp_path / "a")
    assert [(layer, text.rpartition(": ")[2]) for layer, text in watcher.heard] == [
        ("classifier.1", "svd does not declare that it uses it")
    ]
    quiet = Notes()
    run(recipe.model_copy(update={"calibrate": None}), quiet, out=tmp_path / "b")
    assert [(layer, text.partition(":")[0]) for layer, text in quiet.heard] == [
        ("classifier.4", "errors of all weights count alike")
    ]


def test_repair_brings_means_back() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    data = batches(model.pretrained_cfg["input_size"], 24)
    small = vqzoo.compress(model, "binary", layers="all")

    def given() -> Iterator[Batch]:
        return iter(data)

    found = repair(model, small.module, [x.layer.name for x in small.layers], given, 24)
    before, after = found.divergence
    assert after < before
    assert set(found.biases) <= {"fc"}
    assert found.norms == [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    changed = {
        key
        for key, value in found.module.state_dict().items()
        if not torch.equal(value, small.module.state_dict()[key])
    }
    allowed = {"fc.bias"} | {f"{n}.running_{s}" for n in found.norms for s in ("mean", "var")}
    assert changed <= allowed
    # Every norm returns what it returned, on the images that are not held out.
    learned = [batch.images for batch in batches(model.pretrained_cfg["input_size"], 24)]
    images = torch.cat(learned)[torch.arange(24) % 4 != 3]
    last = found.norms[-1]
    seen: list[Tensor] = []
    for network in (model, found.module, small.module):
        norm = network.get_submodule(last)
        hook = norm.register_forward_pre_hook(
            lambda module, args: seen.append(  # timm's norms activate, too
                nn.functional.batch_norm(
                    args[0], module.running_mean, module.running_var, eps=module.eps
                )
            )
        )
        with torch.no_grad():
            network(images)
        hook.remove()
    dense, repaired, unrepaired = (values.movedim(1, 0).flatten(1) for values in seen)
    torch.testing.assert_close(repaired.mean(1), dense.mean(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(repaired.var(1), dense.var(1), rtol=1e-2, atol=1e-3)
    assert (unrepaired.mean(1) - dense.mean(1)).abs().max() > 0.1


def test_what_does_not_hold_on_other_images_is_not_kept() -> None:
    """A correction that brings the answers to three of four images nearer is judged by the
    fourth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    small = vqzoo.compress(model, "km", layers="all", k=2)
    images = 0.1 * torch.randn(40, 8)
    images[torch.arange(40) % 4 != 3] += 8
    given = [Batch(part, None) for part in images.split(7)]
    found = repair(model, small.module, ["0", "2"], lambda: iter(given), 40)
    assert found.biases == []
    assert found.divergence[0] == found.divergence[1]
    alike = [Batch(part, None) for part in images[torch.arange(40) % 4 != 3].split(7)]
    assert repair(model, small.module, ["0", "2"], lambda: iter(alike), 30).biases == ["0", "2"]


def test_corrected_biases_give_every_layer_its_mean_output_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    small = vqzoo.compress(model, "km", layers="all", k=4)
    images = [Batch(torch.rand(50, 32) + 1, None) for _ in range(3)]
    found = repair(model, small.module, ["0", "2"], lambda: iter(images), 150)
    assert found.biases == ["0", "2"]
    assert found.norms == []
    x = torch.cat([batch.images for batch in images])[torch.arange(150) % 4 != 3]
    with torch.no_grad():
        for part in (1, 3):
            shift = (model[:part](x) - found.module[:part](x)).mean(0)
            before = (model[:part](x) - small.module[:part](x)).mean(0)
            assert before.abs().max() > 1e-2
            assert shift.abs().max() < 1e-5


def test_a_repair_that_makes_it_worse_is_not_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16))
    images = [Batch(torch.rand(50, 32) + 1, None)]
    found = repair(model, model, ["0"], lambda: iter(images), 50)
    assert found.biases == []
    assert found.divergence == (0.0, 0.0)


def test_a_bias_before_a_batch_norm_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)).eval()
    small = vqzoo.compress(model, "km", layers="all", k=2)
    images = [Batch(torch.rand(50, 32) + 1, None) for _ in range(2)]
    found = repair(model, small.module, ["0", "2"], lambda: iter(images), 100)
    assert "0" not in found.biases
    assert torch.equal(found.module[0].bias, model[0].bias)
