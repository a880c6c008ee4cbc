"""The built-in importers pass the conformance kit, and so does the example of the documentation."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from vqzoo_importers.deep_compression import DeepCompression
from vqzoo_importers.state_dicts.kill_the_bits import KillTheBits
from vqzoo_importers.state_dicts.permute_quantize import PermuteQuantizeFinetune
from vqzoo_importers.state_dicts.quanto import Quanto

from tests.importers import caffe_net, layouts, test_quanto_files
from vqzoo.plugin.files import plugin_files
from vqzoo.plugin.manager import installed_plugins
from vqzoo.testing import check_importer

EXAMPLE = Path(__file__).parents[2] / "docs/examples/npz_tables.py"


def test_files_that_torch_saved(tmp_path: Path) -> None:
    model = timm.create_model(layouts.ARCHITECTURE)
    path = tmp_path / "small.pth"
    check_importer(KillTheBits, path, model, layouts.kill_the_bits(path))
    expected = layouts.permute_quantize_finetune(path, statistics=False)
    check_importer(PermuteQuantizeFinetune(), path, model, expected)


def test_files_of_quanto(tmp_path: Path) -> None:
    model, path = timm.create_model(test_quanto_files.ARCHITECTURE), tmp_path / "small.pth"
    content, expected = test_quanto_files.contents(test_quanto_files.bytes_of_rows)
    torch.save(content, path)
    check_importer(Quanto, path, model, expected)


def test_files_of_deep_compression(tmp_path: Path) -> None:
    model, path = timm.create_model(caffe_net.ARCHITECTURE), tmp_path / "small.net"
    arrays = caffe_net.deep_compression(path, model)
    arrays["conv1.weight"] = np.ascontiguousarray(arrays["conv1.weight"][:, ::-1])
    expected = {key: torch.from_numpy(values) for key, values in arrays.items()}
    check_importer(DeepCompression, path, model, expected)


def test_the_example(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    arrays: dict[str, Any] = {
        "0.codes": np.arange(12).reshape(3, 4) % 5,
        "0.table": np.linspace(-1, 1, 5, dtype=np.float32),
        "0.bias": np.ones(3, dtype=np.float32),
        "1.weight": np.ones((2, 3), dtype=np.float32),
        "1.bias": np.ones(2, dtype=np.float32),
    }
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    expected = {key: torch.from_numpy(arrays[key]) for key in ("0.bias", "1.weight", "1.bias")}
    expected["0.weight"] = torch.from_numpy(arrays["0.table"][arrays["0.codes"]])
    with plugin_files([EXAMPLE]):
        importer = installed_plugins().importers.get("npz-tables").item
        check_importer(importer, path, model, expected)
