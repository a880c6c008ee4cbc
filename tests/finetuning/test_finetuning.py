"""Fine-tuning by distillation: the loss, what is trained, what stays, and resuming."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vqzoo
from vqzoo.data.batches import Batch, Data
from vqzoo.data.training_data import given_batches
from vqzoo.errors import UsageError, VqzooError
from vqzoo.finetuning.loop import FinetuningResult, tune
from vqzoo.finetuning.loss import distillation_loss
from vqzoo.finetuning.settings import Finetuning
from vqzoo.finetuning.student import make_student
from vqzoo.plugin.code import Indices, MethodCode
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher, TrainingSteps, Watcher


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@given(st.integers(1, 5), st.integers(2, 6), st.floats(0.3, 8), st.floats(0, 1), st.booleans())
def test_the_loss_is_hintons(
    batch: int, classes: int, temperature: float, alpha: float, labelled: bool
) -> None:
    rng = np.random.default_rng(batch * classes)
    student, teacher = rng.normal(size=(2, batch, classes)) * 3
    labels = rng.integers(0, classes, batch)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    if labelled:
        hard = -np.log(softmax(student)[np.arange(batch), labels]).mean()
        expected = alpha * expected + (1 - alpha) * hard
    loss = distillation_loss(
        torch.tensor(student),
        torch.tensor(teacher),
        torch.tensor(labels) if labelled else None,
        temperature=temperature,
        alpha=alpha,
    )
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip
    nn.init.uniform_(net[1].running_mean, -0.1, 0.1)
    return net.eval()


def batches_of(model: nn.Module, count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    x = torch.randn(count, 8, 3, 12, 12)
    with torch.no_grad():
        return [(one, model(one).argmax(1)) for one in x]


def as_data(batches: list[tuple[torch.Tensor, torch.Tensor]], name: str = "random") -> Data:
    return Data(name, None, 5, "", lambda: iter(Batch(x, y) for x, y in batches))


def tuned(
    model: nn.Module,
    method: str = "pq",
    options: dict | None = None,
    *,
    validation: bool = True,
    checkpoint: Path | None = None,
    watcher: Watcher | None = None,
    **settings: object,
) -> tuple[dict[str, MethodCode], FinetuningResult]:
    batches = batches_of(model)
    small = vqzoo.compress(model, method, layers="all", **(options or {"k": 4, "d": 4}))
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    held_out = as_data(batches[-1:]) if validation else None
    result = tune(
        small.module,
        codes,
        model,
        given_batches(batches[:-1], held_out),
        Finetuning(**{"epochs": 2, **settings}),
        installed_plugins(),
        watcher or SilentWatcher(),
        checkpoint=checkpoint,
    )
    return codes, result


METHODS = {
    "km": {"k": 4},
    "pq": {"k": 4, "d": 4},
    "rq": {"k": 4, "d": 4, "stages": 2},
    "binary": {"scale": "row"},
    "rtn": {"format": "int4"},
    "svd": {"rank": 4},
}


@pytest.mark.parametrize("method", METHODS)
def test_floats_are_trained_and_codes_stay(method: str) -> None:
    model = small_net()
    before, after = tuned(model, method, METHODS[method])
    first, best = after.history[0], after.history[after.best_epoch]
    assert best["validation_loss"] < first["validation_loss"]
    changed = False
    for layer, code in after.codes.items():
        assert code.code.facts == before[layer].code.facts
        for name, part in code.code.parts.items():
            was = before[layer].code.parts[name]
            if isinstance(part, Indices):
                assert torch.equal(part.values, was.values)
            else:
                assert part.dtype == was.dtype
                changed |= not torch.equal(part.stored, was.stored)
    assert changed
    state, dense = after.module.state_dict(), model.state_dict()
    for key in dense:
        if "running" in key:
            assert torch.equal(state[key], dense[key])


def test_the_weights_are_those_decoded_from_the_codes() -> None:
    from vqzoo.compression.decode import decode

    _, after = tuned(small_net())
    for layer, code in after.codes.items():
        weight = after.module.get_parameter(f"{layer}.weight")
        assert torch.equal(decode(code, installed_plugins()).view(weight.shape), weight)


@pytest.mark.parametrize("train", ["codebooks", "norms", "all"])
def test_what_is_trained_besides_codes(train: str) -> None:
    model = small_net()
    _, after = tuned(model, train=train)
    state, dense = after.module.state_dict(), model.state_dict()
    changed = {key for key in dense if not torch.equal(state[key], dense[key])}
    beside = {key for key in changed if not (key.endswith("weight") and dense[key].dim() > 1)}
    norms = {f"{n}.{p}" for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)
             for p in ("weight", "bias")}  # fmt: skip
    assert (
        beside
        == {"codebooks": set(), "norms": norms, "all": norms | {"3.bias", "7.bias", "9.bias"}}[
            train
        ]
    )


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(VqzooError, match="nothing to fine-tune"):
        tuned(small_net(), "binary", {"scale": "none"}, train="codebooks")


def test_the_start_is_kept_if_no_epoch_is_better() -> None:
    before, after = tuned(small_net(), lr=5.0, train="codebooks")
    assert after.best_epoch == 0
    for layer, code in after.codes.items():
        for name, part in code.code.parts.items():
            if not isinstance(part, Indices):
                assert torch.equal(part.stored, before[layer].code.parts[name].stored)


def test_patience_ends_training_early() -> None:
    _, after = tuned(small_net(), lr=5.0, epochs=9, patience=2)
    assert [entry["epoch"] for entry in after.history] == [0, 1, 2]


def test_without_validation_the_last_epoch_counts() -> None:
    _, after = tuned(small_net(), validation=False)
    assert after.best_epoch == 2
    assert [entry["validation_loss"] for entry in after.history] == [None, None]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_optimizers_improve_on_the_start(optimizer: str) -> None:
    _, after = tuned(small_net(), optimizer=optimizer, lr=1e-3)
    assert after.best_epoch > 0


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model = small_net()
    batches = batches_of(model)
    batches[1][0][:] = torch.nan
    small = vqzoo.compress(model, "km", k=4)
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    settings, plugins = Finetuning(epochs=2), installed_plugins()
    with pytest.raises(VqzooError, match=r"diverged in epoch 1.*lower --lr"):
        tune(small.module, codes, model, given_batches(batches), settings, plugins, SilentWatcher())


def test_learning_rates_follow_the_size_of_a_tensor_and_a_cosine() -> None:
    from vqzoo.finetuning.optimizer import make_optimizer, set_rates

    model = small_net()
    small = vqzoo.compress(model, "pq", layers="7", k=4, d=4)
    codes = {layer.layer.name: layer.compressed for layer in small.layers}
    student = make_student(small.module, codes, installed_plugins(), "codebooks")
    for optimizer, power in (("adam", 1), ("sgd", 2)):
        adjusted = make_optimizer(student, Finetuning(lr=0.1, optimizer=optimizer))
        for done, factor in ((0.0, 1.0), (1 / 3, 0.75), (1.0, 0.0)):
            set_rates(adjusted, done)
            for group in adjusted.param_groups:
                size = math.sqrt(float(group["params"][0].detach().square().mean()))
                expected = 0.1 * size**power * factor
                assert group["lr"] == pytest.approx(expected, rel=1e-5, abs=1e-12)


def same(one: FinetuningResult, two: FinetuningResult) -> bool:
    first, second = one.module.state_dict(), two.module.state_dict()
    return one.history == two.history and all(torch.equal(first[k], second[k]) for k in first)


class Killed(Exception):
    pass


class Steps(SilentWatcher):
    """Counts training steps, and ends training after the step number `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.count = 0
        self.last = last

    @contextmanager
    def training(self, text: str) -> Iterator[TrainingSteps]:
        def show(done: int, total: int | None, progress: str) -> None:
            self.count += 1
            if self.count == self.last:
                raise Killed

        yield show


def test_it_repeats_and_resumes_after_the_last_whole_epoch(tmp_path: Path) -> None:
    model = small_net()
    whole = tuned(model, epochs=3, checkpoint=tmp_path / "whole.pt")[1]
    state = torch.random.get_rng_state()
    assert same(whole, tuned(model, epochs=3)[1])
    assert torch.equal(state, torch.random.get_rng_state())

    file = tmp_path / "broken.pt"
    with pytest.raises(Killed):
        tuned(model, epochs=3, checkpoint=file, watcher=Steps(last=4))  # the last of epoch 2
    rest = Steps()
    assert same(whole, tuned(model, epochs=3, checkpoint=file, watcher=rest)[1])
    assert rest.count == 4  # epochs 2 and 3, of two steps each
    nothing = Steps()
    assert same(whole, tuned(model, epochs=3, checkpoint=file, watcher=nothing)[1])
    assert nothing.count == 0


def test_a_truncated_checkpoint_is_replaced(tmp_path: Path) -> None:
    model = small_net()
    whole = tuned(model, checkpoint=tmp_path / "a.pt")[1]
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:1000])
    assert same(whole, tuned(model, checkpoint=tmp_path / "a.pt")[1])


def test_a_recipe_names_the_field_that_is_wrong() -> None:
    from vqzoo.runs.recipe import make_recipe

    fields = {"model": "alexnet_mini.fmnist", "method": "pq"}
    assert make_recipe({**fields, "finetune": {"epochs": 3}}).finetune == Finetuning(epochs=3)
    with pytest.raises(UsageError, match=r"^finetune\.epoch: unknown; there are: epochs, data"):
        make_recipe({**fields, "finetune": {"epoch": 3}})
