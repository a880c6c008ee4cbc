"""The page that classifies pictures, in a real browser where one is installed."""

import gzip
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vqzoo
from vqzoo.data.evaluation_data import open_data
from vqzoo.errors import VqzooError
from vqzoo.network.export import export
from vqzoo.network.export.web import runtime

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache in which the runtime lies, without a download."""
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / f"onnxruntime-web-{runtime.VERSION}"
    kept.mkdir(parents=True)
    for name in runtime.FILES:
        (kept / name).write_text(name)


def test_the_folder_has_all_that_a_page_needs(made: Path, stand_in: None, tmp_path: Path) -> None:
    exported = export(made, "web", tmp_path / "web")
    names = {str(path.relative_to(tmp_path / "web")) for path in exported.files}
    assert names == {
        "config.json", "index.html", "model.onnx.gz", "network.json", "page.css", "page.js",
        "picture.js", *(f"runtime/{name}" for name in runtime.FILES),
    }  # fmt: skip
    assert exported.bytes == (tmp_path / "web/model.onnx.gz").stat().st_size
    network = json.loads((tmp_path / "web/network.json").read_text())
    assert (network["channels"], network["crop"], network["resize"]) == (3, 160, 168)
    assert len(network["labels"]) == 1000
    import onnx

    onnx.checker.check_model(gzip.decompress((tmp_path / "web/model.onnx.gz").read_bytes()))


def test_a_runtime_with_another_checksum_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / f"npm/onnxruntime-web/-/onnxruntime-web-{runtime.VERSION}.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    monkeypatch.setenv("VQZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_registry", (tmp_path / "npm").as_uri())
    with pytest.raises(VqzooError, match="checksum"):
        export(made, "web", tmp_path / "web")
    monkeypatch.setenv("npm_config_registry", (tmp_path / "nothing").as_uri())
    with pytest.raises(VqzooError, match="npm_config_registry"):
        export(made, "web", tmp_path / "web")
    assert not (tmp_path / "web").exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of `tmp_path`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(
    CHROMIUM is None or "VQZOO_BROWSER" not in os.environ,
    reason="needs Chromium, a download from npm, and VQZOO_BROWSER=1",
)
@pytest.mark.parametrize("name", ["alexnet_mini", "mobilenet_mini", "test_resnet"])
def test_a_browser_computes_pythons_logits(name: str, served: str, tmp_path: Path) -> None:
    """On ten pictures, offline once the page is loaded.

    Of tall pictures Pillow 13 resizes the columns first, and pixels differ by 1/255.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    vqzoo.register_models()
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    vqzoo.compress(model, "pq", layers="all", d=4, k=16).save(tmp_path / "a")
    export(tmp_path / "a", "web", tmp_path / "web")
    (tmp_path / "pictures/one").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(10):
        shape = (60 + 20 * i, 300 - 15 * i, 3)
        picture = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
        picture.save(tmp_path / f"pictures/one/{i}.png")
    dense = vqzoo.load(tmp_path / "a")
    data = open_data(f"imagefolder:{tmp_path / 'pictures'}", dense, own_labels=True)
    expected = torch.cat([dense(batch.images) for batch in data.batches()])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{served}/web/index.html")
        page.wait_for_selector("#file:enabled", timeout=60_000)
        page.context.set_offline(True)
        logits, times = [], []
        for i in range(10):
            page.set_input_files("#file", str(tmp_path / f"pictures/one/{i}.png"))
            page.wait_for_function("document.querySelectorAll('#classes li').length == 5")
            times += re.findall(r"in (\d+) ms", page.text_content("#status") or "")
            script = "classify(document.getElementById('file').files[0])"
            logits.append(page.evaluate(script))
            times += re.findall(r"in (\d+) ms", page.text_content("#status") or "")
        likeliest = page.text_content("#classes li")
        if folder := os.environ.get("VQZOO_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{name}.png")
        browser.close()
    assert problems == []
    first, *others = map(int, times)
    assert first <= 3 * max(others) + 50  # loading, and not the first picture, warms up
    actual = torch.tensor(logits)
    assert (actual - expected).abs().max() <= 1e-3 * expected.abs().max()
    labels = json.loads((tmp_path / "web/network.json").read_text())["labels"]
    assert likeliest is not None
    assert likeliest.startswith(labels[int(expected[-1].argmax())])
