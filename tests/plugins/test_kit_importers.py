"""The conformance kit finds each way in which an importer breaks the contract."""

import json
import re
from pathlib import Path

import pytest
import torch
from broken_rules import broken_rules
from torch import Tensor, nn

from vqzoo.errors import VqzooError
from vqzoo.plugin import Code, Floats, ImportedNetwork, Importer, ImportTarget, Indices, MethodCode
from vqzoo.testing import check_importer

MODEL = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
TABLE = [-1.5, 0.25, 2.0]
REST = {key: value for key, value in MODEL.state_dict().items() if value.dim() == 1}


class Json(Importer):
    """A table and, for each weight, the places of its values: sound."""

    name = "json"
    summary = "tables and places"
    source = "a test"

    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        content = self.content(path)
        layers = {}
        for key, codes in content.items():
            layer = target.layers.get(key)
            if layer is None or len(codes) != layer.numel:
                raise VqzooError(f"{path}: {key} does not fit the network")
            layers[key] = self.code(key, codes, layer.matrix_shape)
        rest = {key: self.tensor(value) for key, value in REST.items()}
        return ImportedNetwork(layers, rest)

    def content(self, path: Path) -> dict[str, list[int]]:
        try:
            content = json.loads(path.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise VqzooError(f"{path} cannot be read: {error}".splitlines()[0]) from None
        if not isinstance(content, dict):
            raise VqzooError(f"{path} has no layers")
        for key, codes in content.items():
            if not isinstance(codes, list) or not all(code in (0, 1, 2) for code in codes):
                raise VqzooError(f"{path}: {key} has other codes")
        return content

    def code(self, key: str, codes: list[int], shape: tuple[int, int]) -> MethodCode:
        parts = {
            "codes": Indices(torch.tensor(codes, dtype=torch.int64).view(shape), 3),
            "codebook": Floats(torch.tensor(TABLE)),
        }
        return MethodCode("km", Code(shape, parts))

    def tensor(self, value: Tensor) -> Tensor:
        return value.clone()


class Silent(Json):
    summary = ""


class Rounding(Json):
    def code(self, key: str, codes: list[int], shape: tuple[int, int]) -> MethodCode:
        return super().code(key, [min(code, 1) for code in codes], shape)


class Fickle(Json):
    calls = 0

    def tensor(self, value: Tensor) -> Tensor:
        self.calls += 1
        return value + 1e-3 * self.calls


class Writing(Json):
    def content(self, path: Path) -> dict[str, list[int]]:
        content = super().content(path)
        path.write_text(path.read_text() + " ")
        return content


class Trusting(Json):
    def content(self, path: Path) -> dict[str, list[int]]:
        content: dict[str, list[int]] = json.loads(path.read_bytes())
        return content


class Forgiving(Json):
    def content(self, path: Path) -> dict[str, list[int]]:
        try:
            return super().content(path)
        except VqzooError:
            return FILE


class Generous(Json):
    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        network = super().read(path, target)
        extra = {k: torch.zeros(s) for k, s in target.shapes.items() if "extra." in k}
        return ImportedNetwork(network.layers, {**network.tensors, **extra})


class Blind(Json):
    def read(self, path: Path, target: ImportTarget) -> ImportedNetwork:
        content = self.content(path)
        layers = {
            key: self.code(key, codes, target.layers[key].matrix_shape)
            for key, codes in content.items()
        }
        return ImportedNetwork(layers, {key: self.tensor(value) for key, value in REST.items()})


FILE = {
    "0.weight": [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0],
    "2.weight": [2, 2, 1, 0, 0, 1],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps(FILE))
    return path


def expected() -> dict[str, Tensor]:
    state = dict(MODEL.state_dict())
    for key, codes in FILE.items():
        state[key] = torch.tensor([TABLE[code] for code in codes]).view(state[key].shape)
    return state


@pytest.mark.parametrize(
    ("importer", "rule"),
    [
        (Silent, "it is described: its summary is empty"),
        (Rounding, "weights are the other librarys: 0.weight has other values"),
        (Fickle, "reading is pure: the second call gave another"),
        (Writing, "reading is pure: read changed the file"),
        (Trusting, "damaged files are refused or read: JSONDecodeError"),
        (Forgiving, "empty files are refused: it accepted an empty codes.json"),
        (Generous, "networks that do not fit are refused: a network with another layer"),
        (Blind, "networks that do not fit are refused: KeyError"),
    ],
)
def test_a_broken_importer_is_reported_with_the_rule(
    importer: type[Importer], rule: str, file: Path
) -> None:
    check_importer(Json, file, MODEL, expected())
    with pytest.raises(ExceptionGroup) as caught:
        check_importer(importer, file, MODEL, expected())
    reports = broken_rules(caught)
    assert any(re.match(re.escape(rule), text) for text in reports), "\n".join(reports)
