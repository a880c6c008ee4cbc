"""Artifacts without an architecture: what refuses them, and forged ones."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forging import Forgery, take_apart
from test_fuzz import MUTATIONS, Unsealable
from torch import Tensor, nn
from typer.testing import CliRunner

import vqzoo
from vqzoo.artifact.reader import open_artifact
from vqzoo.cli.main import app
from vqzoo.errors import ArtifactError, UsageError
from vqzoo.hub.repository import push

CASES = int(os.environ.get("VQZOO_FUZZ", "120"))

pytestmark = pytest.mark.usefixtures("little_memory")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40), nn.Linear(40, 7))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact of weights alone."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "mine"
    vqzoo.save_weights(vqzoo.compress(network(), "pq", k=12, d=5, scale="row"), folder)
    return folder


def test_the_config_has_no_architecture_and_the_header_says_so(weights: Path) -> None:
    forged = take_apart(weights)
    assert forged.config == {"network": "Sequential"}
    assert forged.metadata["required_features"] == ["weights-only"]
    assert open_artifact(weights).weights_only


COMMANDS = [
    ["eval", "mine", "--data", "fmnist"],
    ["eval", "alexnet_mini.fmnist", "--reference", "mine", "--images", "2"],
    ["run", "mine", "-m", "km"],
    ["run", "local-dir:mine", "-m", "km", "--out", "b"],
    ["compare", "mine", "--methods", "km", "--ratios", "8", "--out", "b"],
    ["finetune", "mine", "--data", "fmnist"],
    ["finetune", "local-dir:mine", "--data", "fmnist"],
    ["export", "mine", "--to", "dense", "--out", "b"],
    ["zoo", "build", "--recipes", "recipes", "--dry-run"],
    ["zoo", "build", "--recipes", "recipes"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_that_build_networks_name_load_into(
    words: list[str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(weights, "mine")
    Path("recipes").mkdir()
    Path("recipes/a.yaml").write_text("model: mine\nmethod: km\noptions: {k: 4}\n")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == (1 if "zoo" in words and words[-1] != "--dry-run" else 2)
    assert "vqzoo.load_into(model, folder)" in " ".join(result.output.split())
    assert not list(Path().glob("b/**/config.json"))


def test_load_names_load_into(weights: Path) -> None:
    with pytest.raises(UsageError, match=r"mine holds weights only.*vqzoo\.load_into"):
        vqzoo.load(weights)


def test_a_push_is_refused_before_there_is_any_connection(weights: Path) -> None:
    with pytest.raises(UsageError, match="nobody could build its network from the Hub"):
        push(weights, "org/name", token="hf_unused")


def test_inspect_says_what_the_folder_holds(weights: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(weights)])
    assert result.exit_code == 0
    assert result.output.startswith("weights only, of Sequential, method pq")
    assert "vqzoo.load_into(model, folder)" in " ".join(result.output.split())
    assert "0.weight" in result.output


def test_save_names_save_weights(tmp_path: Path) -> None:
    small = vqzoo.compress(network(), "km", k=4)
    with pytest.raises(UsageError, match=r"vqzoo\.save_weights"):
        small.save(tmp_path / "a")


Change = Callable[[Forgery], Any]


def rename(old: str, new: str) -> Change:
    def change(forged: Forgery) -> None:
        forged.header[new], forged.data[new] = forged.header.pop(old), forged.data.pop(old)

    return change


def fill(part: str, pattern: bytes) -> Change:
    def change(forged: Forgery) -> None:
        name = f"{forged.key()}::{part}"
        forged.data[name] = (pattern * len(forged.data[name]))[: len(forged.data[name])]

    return change


def flat_weight(forged: Forgery) -> None:
    forged.layer()["shape"] = [1600]


def tall_weight(forged: Forgery) -> None:
    forged.layer().update(shape=[20, 80], view=[20, 80])
    forged.layer()["code"]["shape"] = [20, 80]


def double(forged: Forgery) -> None:
    forged.set_tensor("1.bias", "F64", [40], bytes(320))


def set_metadata(name: str, value: Any) -> Change:
    return lambda forged: forged.metadata.__setitem__(name, value)


def set_config(forged: Forgery) -> None:
    forged.config["architecture"] = "resnet18"


LIES: dict[str, tuple[Change, str]] = {
    "a missing tensor": (lambda f: f.drop_tensor("1.bias"), "the artifact lacks '1.bias'"),
    "another tensor": (rename("1.bias", "9.bias"), "the network has no '9.bias'"),
    "a tensor with a name in colour": (rename("1.bias", "\x1b[31m\n"), r"no '\x1b[31m\n'"),
    "a tensor more": (
        lambda f: f.set_tensor("more", "F32", [2], bytes(8)), "the network has no 'more'"
    ),
    "a flat weight": (flat_weight, "is float32 (1600,) in the artifact"),
    "a weight of another shape": (tall_weight, "is float32 (20, 80) in the artifact"),
    "a wide weight": (lambda f: f.layer().update(dtype="float64"), "is float64 (40, 40) in the"),
    "a wide bias": (double, "'1.bias' is float64 (40,) in the artifact and float32 (40,) in the"),
    "an alias of nothing": (set_metadata("aliases", {"a": "b"}), "is an alias of 'b', which is"),
    "an alias more": (set_metadata("aliases", {"a": "1.bias"}), "the network has no 'a'"),
    "codes past the codebook": (fill("codes", b"\xff"), "codes that are not below 12"),
    "NaN in the codebook": (fill("codebook", b"\xff"), "NaN or infinite"),
    "an unknown method": (lambda f: f.layer()["code"].update(method="none"), "no installed plugin"),
    "an architecture": (set_config, "names an architecture"),
    "a feature more": (
        set_metadata("required_features", ["weights-only", "x"]), "does not have: ["
    ),
    "features in numbers": (set_metadata("required_features", [[1]]), "does not have: [[1]]"),
    "features of another type": (set_metadata("required_features", {"a": 1}), "does not have"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["decoded", "codes"])
@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_and_the_network_stays_as_it_was(
    lie: str, mode: Any, weights: Path, tmp_path: Path
) -> None:
    change, text = LIES[lie]
    forged = take_apart(weights)
    change(forged)
    refused(forged.seal(tmp_path / "a"), mode, text)


def refused(folder: Path, mode: Any, text: str) -> None:
    model = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    layers = list(model.children())
    with pytest.raises(ArtifactError) as caught:
        vqzoo.load_into(model, folder, mode=mode)
    line = str(caught.value)
    assert text in line
    assert "\n" not in line
    assert "\x1b" not in line
    state: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert list(model.children()) == layers


@pytest.mark.parametrize("mode", ["decoded", "codes"])
def test_damage_is_refused(mode: Any, weights: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights, tmp_path / "a"))
    path = folder / "vqzoo.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    refused(folder, mode, "bytes, but its header describes")
    path.write_bytes(raw[:5])
    refused(folder, mode, "too short")
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(folder, mode, "is damaged")
    path.unlink()
    refused(folder, mode, "does not exist")


@pytest.mark.parametrize("kind", MUTATIONS)
def test_mutations_are_refused_without_a_trace_or_fill_the_network(
    kind: str, weights: Path, tmp_path: Path
) -> None:
    """As in test_fuzz.py, which has the mutations."""
    outcomes: Counter[str] = Counter()
    for case in range(CASES // len(MUTATIONS)):
        folder = Path(shutil.copytree(weights, tmp_path / "a"))
        model = network()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        try:
            MUTATIONS[kind](folder, random.Random(f"{kind} {case}"))
            loaded = vqzoo.load_into(model, folder, mode=("decoded", "codes")[case % 2])
        except (ArtifactError, Unsealable) as error:
            outcomes[type(error).__name__] += 1
            state: dict[str, Tensor] = model.state_dict()
            assert all(torch.equal(state[key], before[key]) for key in before), (kind, case)
        else:
            outcomes["loaded"] += 1
            assert loaded(torch.zeros(2, 40)).shape == (2, 7)
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
    assert outcomes["ArtifactError"] > CASES // len(MUTATIONS) // 4, outcomes
