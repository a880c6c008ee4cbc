"""`vqzoo import`: what it writes, says and refuses, and what can be done with the artifact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import vqzoo as vqzoo_package
from tests.importers.layouts import ARCHITECTURE, kill_the_bits
from vqzoo.artifact.reader import open_artifact
from vqzoo.plugin.code import Floats

Vqzoo = Callable[..., Any]
TRAINED = "alexnet_mini.fmnist"

# An importer of a library that stores one byte a weight, and one table for all of them.
BYTES = """
import torch
from vqzoo.plugin import Code, Floats, ImportedNetwork, Importer, Indices, MethodCode, hookimpl


class Bytes(Importer):
    name = "bytes"
    summary = "one byte a weight"

    def read(self, path, target):
        table = torch.arange(256.0)
        if path.suffix == ".broken":
            raise KeyError("table")
        layers = {}
        for key, layer in target.layers.items():
            codes = torch.full(layer.matrix_shape, len(path.stem))
            parts = {"codes": Indices(codes, 256), "codebook": Floats.of(table, "float32")}
            layers[key] = MethodCode("km", Code(layer.matrix_shape, parts))
        rest = {k: torch.ones(s) for k, s in target.shapes.items() if k not in layers}
        note = "The table was assumed."
        return ImportedNetwork(layers, rest, "mit", "a test", (note,))


@hookimpl
def vqzoo_importers():
    return [Bytes()]
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of permute-quantize-finetune of a trained network, whose Linear layers are codes."""
    vqzoo_package.register_models()
    network = timm.create_model(TRAINED, pretrained=True)
    small = vqzoo_package.compress(network, "pq", k=32, d=4, scale="none")
    content = dict(small.module.state_dict())
    for layer in small.layers:
        code, name = layer.compressed.code, layer.layer.name
        codebook = code.parts["codebook"]
        assert isinstance(codebook, Floats)
        del content[f"{name}.weight"]
        content[f"{name}.codes_matrix"] = code.indices("codes").T.contiguous()
        content[f"{name}.codebook"] = codebook.stored[0]
    path = tmp_path_factory.mktemp("trained") / "trained.pth"
    torch.save(content, path)
    return path


def test_an_import_is_measured_and_fine_tuned_like_any_artifact(
    vqzoo: Vqzoo, trained: Path, tmp_path: Path
) -> None:
    words = ["import", str(trained), "--from", "permute-quantize-finetune", "--out", "small"]
    words += ["--model", TRAINED, "--licence", "cc-by-nc-4.0", "--origin", "https://example.org/a"]
    made = vqzoo(*words)
    assert made.exit_code == 0, made.stderr
    assert "small: 3 layers as codes, " in made.stdout
    inspected = " ".join(vqzoo("inspect", "small").stdout.split())
    assert "it rebuilds the network that was imported" in inspected
    measured = vqzoo("eval", "small", "--data", "fmnist", "--images", "200", "--json")
    top1 = json.loads(measured.stdout)["top1"]
    assert top1 > 80

    card = (tmp_path / "small" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    assert "By `vqzoo import`, from the file `trained.pth` of the kind" in card
    assert "from https\\://example.org/a; their licence, cc-by-nc-4.0, applies" in card
    assert "base_model" not in card

    tune = ["finetune", "small", "--epochs", "1", "--data", "fmnist", "--train-images", "64"]
    tune += ["--eval-data", "fmnist", "--images", "200", "--json"]
    refused = vqzoo(*tune)
    assert refused.exit_code == 2
    assert "was imported as codes, and its dense weights are not here: give --teacher" in (
        refused.stderr
    )
    finished = vqzoo(*tune, "--teacher", TRAINED)
    assert finished.exit_code == 0, finished.stderr
    record = json.loads(finished.stdout)
    assert record["weights"] == "imported:permute-quantize-finetune:trained.pth"
    assert record["accuracy"]["dense"]["top1"] == top1
    tuned = (tmp_path / "small-finetuned" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in tuned
    again = vqzoo(*tune, "--teacher", TRAINED, "--force")
    assert again.exit_code == 0, again.stderr


def test_the_licence_of_timms_own_weights_is_not_that_of_the_file(
    vqzoo: Vqzoo, tmp_path: Path
) -> None:
    kill_the_bits(tmp_path / "a.pth")
    words = ("import", "a.pth", "--from", "kill-the-bits", "--model", f"{ARCHITECTURE}.r160_in1k")
    made = vqzoo(*words, "--out", "small")
    assert made.exit_code == 0, made.stderr
    assert "The file does not say what its licence is: --licence records it." in made.stderr
    assert "license: unknown" in (tmp_path / "small" / "README.md").read_text()
    assert vqzoo(*words, "--out", "small").exit_code == 2
    again = vqzoo(*words, "--out", "small", "--force", "--license", "mit", "--packing", "huffman")
    assert again.exit_code == 0, again.stderr
    assert "license: mit" in (tmp_path / "small" / "README.md").read_text()
    header = open_artifact(tmp_path / "small").metadata.layers["fc.weight"].code
    assert header.parts["codes"].packing in ("huffman", "bits")  # bits where they are smaller


def test_a_plugin_brings_an_importer_of_its_own(vqzoo: Vqzoo, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BYTES)
    (tmp_path / "abc.own").write_bytes(b"")
    (tmp_path / "abc.broken").write_bytes(b"")
    words = ("--from", "bytes", "--model", ARCHITECTURE, "--out", "small", "--plugin", "own.py")
    broken = vqzoo("import", "abc.broken", *words)
    assert broken.exit_code == 1
    assert "importer bytes (plugin file:own.py) failed: KeyError: 'table'" in broken.stderr
    made = vqzoo("import", "abc.own", *words)
    assert made.exit_code == 0, made.stderr
    assert "The table was assumed." in made.stderr
    assert "licence" not in made.stderr
    weight = vqzoo_package.load(tmp_path / "small").get_parameter("fc.weight")
    assert torch.equal(weight, torch.full((1000, 96), 3.0))
    card = (tmp_path / "small" / "README.md").read_text()
    assert "license: mit" in card
    assert ", from a test;" in card


def test_unknown_names_are_refused(vqzoo: Vqzoo, tmp_path: Path) -> None:
    kill_the_bits(tmp_path / "a.pth")
    words = {"--from": "kill-the-bits", "--model": ARCHITECTURE, "--out": "small"}
    wrong = {
        "--from": ("kill-the-bit", "no importer called 'kill-the-bit'; did you mean kill-the-bits"),
        "--model": ("resnet17", "there is no model 'resnet17'"),
        "--packing": ("zip", "no packing called 'zip'"),
        "--licence": ("x" * 100, "is not a line of at most 80 characters"),
        "--model-arg": (
            "num_classes=7",
            "assignments are not n_blocks=24 times 7 rows",
        ),
    }
    for option, (value, message) in wrong.items():
        given = words | {option: value}
        result = vqzoo("import", "a.pth", *(word for pair in given.items() for word in pair))
        assert result.exit_code in (1, 2)
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "small").exists()


def test_plugins_lists_the_importers(vqzoo: Vqzoo) -> None:
    words = vqzoo("plugins").stdout.replace(",", " ").split()
    for kind in ("kill-the-bits", "permute-quantize-finetune", "deep-compression", "coreml"):
        assert kind in words
