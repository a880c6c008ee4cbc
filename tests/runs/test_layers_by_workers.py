"""Layers of one run that processes compress side by side: the same bytes, less patience."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn

import vqzoo
from vqzoo.artifact.schema import CONFIG_FILE, WEIGHTS_FILE
from vqzoo.errors import PluginError, UsageError, VqzooError
from vqzoo.numerics.threads import use_threads
from vqzoo.plugin import CallResources
from vqzoo.plugin.manager import installed_plugins
from vqzoo.progress import SilentWatcher
from vqzoo.runs.recipe import make_recipe
from vqzoo.runs.run import run

# What a method does with `fc` depends on a file: it sleeps, or its process dies.
PLUGIN = """
import os, signal, time
from pathlib import Path
from vqzoo.plugin import Code, Floats, Quantizer, SkipLayer, hookimpl

FOLDER = Path({folder!r})

class Half(Quantizer):
    name = "half"
    def quantize(self, weight, options, context):
        (FOLDER / f"{{context.layer}}.pid").write_text(str(os.getpid()))
        context.note("as it is")
        if context.layer == "conv1.0":
            raise SkipLayer("too small")
        if context.layer == "conv1.3" and (FOLDER / "broken").exists():
            raise ValueError("odd")
        while context.layer == "fc" and (FOLDER / "sleeps").exists():
            if (FOLDER / "dies").exists() and len(list(FOLDER.glob("*.pid"))) > 4:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
        return Code(tuple(weight.shape), {{"values": Floats.of(weight, "float16")}})
    def reconstruct(self, code, params):
        return params["values"]

@hookimpl
def vqzoo_quantizers():
    return [Half()]
"""
RESNET = {"model": "test_resnet", "weights": "random", "layers": ("all",)}
VIT = {"model": "vit_mini.fmnist", "images": 20, "calibration_images": 24}
ALL_METHODS = {
    **RESNET,
    "method": "km",
    "rules": [
        {"layers": "fc", "method": "svd"},
        {"layers": "layer4.0.conv1", "method": "pq"},
        {"layers": "layer4.0.conv2", "method": "rq"},
        {"layers": "layer4.0.downsample*", "method": "diba"},
        {"layers": "layer3.0.conv2", "method": "ecq"},
        {"layers": "layer3.0.conv3", "method": "binary"},
        {"layers": "layer3.0.downsample*", "method": "prune"},
        {"layers": "layer2.0.conv2", "method": "deep-compression"},
        {"layers": "layer2.0.conv1", "method": "rtn"},
    ],
}
CALIBRATED = {
    **VIT,
    "calibrate": "fmnist",
    "repair": "fmnist",
    "method": "pq",
    "options": {"k": 16},
    "layers": ("blocks.0.*", "head"),
    "rules": [
        {"layers": "blocks.0.attn.qkv", "method": "ecq"},
        {"layers": "blocks.0.mlp.fc1", "method": "rtn", "options": {"format": "int4"}},
        {"layers": "head", "method": "svd", "options": {"rank": 4}},
    ],
}
PRICE = {
    **RESNET,
    "method": "ecq,rtn",
    "price": 1e-6,
    "layers": ("layer1*", "layer2*"),
    "rules": [{"layers": "layer3.0.conv2", "method": "binary"}],
}
SEQUENTIAL_PRICE = {
    **VIT,
    "price": 1e-6,
    "sequential": True,
    "layers": ("blocks.0.attn.qkv", "blocks.0.mlp.fc1"),
}
FINETUNED = {
    **VIT,
    "method": "km",
    "layers": ("head", "blocks.0.attn.proj"),
    "finetune": {"epochs": 1, "images": 16},
}


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    executor = installed_plugins().engines.get("local").item.start("2", CallResources(cpus=1))
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture
def half(tmp_path: Path) -> dict[str, Any]:
    """A recipe whose method does as files say."""
    (tmp_path / "half.py").write_text(PLUGIN.format(folder=str(tmp_path)))
    return {**RESNET, "method": "half", "plugins": [tmp_path / "half.py"]}


class Listening(SilentWatcher):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.begun: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def note(self, layer: str, text: str) -> None:
        self.notes.append((layer, text))

    def layer_started(self, name: str, index: int, total: int) -> None:
        self.begun.append((index, total))


def result(out: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """An artifact's weights, its config, and what its record says beside times."""
    record = json.loads((out / "report.json").read_text())
    del record["seconds"]
    return (out / WEIGHTS_FILE).read_bytes(), (out / CONFIG_FILE).read_bytes(), record


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [ALL_METHODS, CALIBRATED, PRICE, SEQUENTIAL_PRICE, FINETUNED],
    ids=["all-methods", "calibrated", "price-of-a-bit", "sequential-at-a-price", "finetuned"],
)
def test_workers_make_the_same_artifact_and_record(
    tmp_path: Path, executor: Executor, fields: dict[str, Any]
) -> None:
    recipe, here, there = make_recipe(fields), Listening(), Listening()
    run(recipe, here, out=tmp_path / "here")
    run(recipe, there, out=tmp_path / "there", executor=executor)
    assert result(tmp_path / "there") == result(tmp_path / "here")
    assert sorted(there.notes) == sorted(here.notes)
    assert there.said == here.said
    assert len(there.begun) == len(here.begun)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == sorted(
        path.name for path in (tmp_path / "here").iterdir()
    )


@pytest.mark.slow
def test_what_is_left_dense_is_left_for_the_same_reasons(
    tmp_path: Path, executor: Executor, half: dict[str, Any]
) -> None:
    (tmp_path / "broken").touch()
    recipe, here, there = make_recipe(half), Listening(), Listening()
    run(recipe, here, out=tmp_path / "here", keep_going=True)
    run(recipe, there, out=tmp_path / "there", keep_going=True, executor=executor)
    assert result(tmp_path / "there") == result(tmp_path / "here")
    assert sorted(there.notes) == sorted(here.notes)
    assert {"conv1.0", "conv1.3"} == set(result(tmp_path / "there")[2]["skipped"])
    with pytest.raises(PluginError, match=r"conv1\.3.*odd.*--keep-going leaves it dense"):
        run(recipe, there, out=tmp_path / "other", executor=executor)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_layer_and_the_run_resumes_without_workers(
    tmp_path: Path, executor: Executor, half: dict[str, Any]
) -> None:
    for name in ("sleeps", "dies"):
        (tmp_path / name).touch()
    recipe, out = make_recipe(half), tmp_path / "killed"
    with pytest.raises(VqzooError) as raised:
        run(recipe, SilentWatcher(), out=out, executor=executor)
    assert str(raised.value) == (
        "layer fc is not compressed: its process was ended by SIGKILL; it may have run out of "
        "memory; run the same command again to resume"
    )
    saved = len(list((tmp_path / "killed.partial/layers").iterdir()))
    assert 2 <= saved < 15
    assert not (tmp_path / "killed.partial/in-flight").exists()
    for path in (tmp_path / "sleeps", *tmp_path.glob("*.pid")):
        path.unlink()
    watcher = Listening()
    run(recipe, watcher, out=out)
    assert "Resuming" in watcher.said[0]
    assert len(list(tmp_path.glob("*.pid"))) == 16 - saved
    run(recipe, SilentWatcher(), out=tmp_path / "whole")
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_nothing_running_and_another_number_of_workers_resumes(
    tmp_path: Path, executor: Executor, half: dict[str, Any]
) -> None:
    (tmp_path / "sleeps").touch()
    words = ["run", "test_resnet", "--weights", "random", "--layers", "all", "-m", "half",
             "--plugin", "half.py", "--out", "out", "--executor", "local:1"]  # fmt: skip
    driver = subprocess.Popen(
        [sys.executable, "-m", "vqzoo.cli.main", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    partial = tmp_path / "out.partial"
    deadline = time.monotonic() + 300
    while not ((tmp_path / "fc.pid").exists() and list((partial / "layers").iterdir())):
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    _, printed = driver.communicate(timeout=300)
    assert driver.returncode == 130
    assert "interrupted; run the same command again to resume" in printed
    workers = {int(path.read_text()) for path in tmp_path.glob("*.pid")}
    assert len(workers) == 1
    assert not Path(f"/proc/{workers.pop()}").exists()
    assert not (partial / "in-flight").exists()
    (tmp_path / "sleeps").unlink()
    for path in tmp_path.glob("*.pid"):
        path.unlink()
    run(make_recipe(half), SilentWatcher(), out=tmp_path / "out", executor=executor)
    assert not (tmp_path / "layer4.0.conv1.pid").exists()  # it was finished
    assert len(list(tmp_path.glob("*.pid"))) == 15
    run(make_recipe(half), SilentWatcher(), out=tmp_path / "whole")
    assert result(tmp_path / "out") == result(tmp_path / "whole")


def test_codes_do_not_depend_on_the_number_of_threads() -> None:
    """LAPACK, by which `svd` factorizes, rounds by it."""
    torch.manual_seed(0)
    layer = nn.Linear(768, 768)
    factors = []
    for threads in (1, 2, 3):
        with use_threads(threads), threadpool_limits(threads):
            (small,) = vqzoo.compress(layer, "svd", layers="all", rank=256).layers
        factors.append(small.compressed.code.floats()["left"])
    assert torch.equal(factors[1], factors[0])
    assert torch.equal(factors[2], factors[0])


class Weighing(Executor):
    """Runs calls at once, from their pickles, and weighs what they are given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[int] = []
        self.files: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = pickle.dumps((fn, args, kwargs))
        self.calls.append(len(call))
        self.files.append(sum(path.stat().st_size for path in self.folder.iterdir()))
        future: Future[Any] = Future()
        function, positional, named = pickle.loads(call)
        future.set_result(pickle.loads(pickle.dumps(function(*positional, **named))))
        return future


def test_calls_hold_no_weights_and_files_are_there_for_calls_in_flight(tmp_path: Path) -> None:
    fields = {**RESNET, "method": "rtn", "options": {"format": "int8"}}
    weighing = Weighing(tmp_path / "out.partial/in-flight")
    finished = run(make_recipe(fields), SilentWatcher(), out=tmp_path / "out", executor=weighing)
    sizes = sorted((4 * prod(layer.shape) for layer in finished.record.layers), reverse=True)
    assert len(weighing.calls) == len(sizes) == 16
    assert max(weighing.calls) < 4000
    for file, size in zip(weighing.files, sizes, strict=True):  # the largest comes first
        assert 0 <= file - size < 400
    assert not weighing.folder.exists()


def test_what_cannot_be_compressed_side_by_side_is_refused(tmp_path: Path) -> None:
    weighing = Weighing(tmp_path)
    behind = {**VIT, "method": "ecq", "calibrate": "fmnist", "sequential": True}
    with pytest.raises(UsageError, match="behind those before it; leave out one of the two"):
        run(make_recipe(behind), SilentWatcher(), out=tmp_path / "out", executor=weighing)
    on_device = make_recipe({**RESNET, "method": "km", "device": "meta"})
    with pytest.raises(UsageError, match="on CPUs, not on --device meta; leave out one"):
        run(on_device, SilentWatcher(), out=tmp_path / "out", executor=weighing)
    assert list(tmp_path.iterdir()) == []


class Elsewhere(Weighing):
    """Runs calls where nobody sees the driver's files."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        hidden = self.folder.rename(self.folder.with_name("hidden"))
        future: Future[Any] = Future()
        try:
            fn(*args, **kwargs)
        except Exception as error:
            future.set_exception(error)
        hidden.rename(self.folder)
        return future


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path / "out.partial/in-flight")
    recipe = make_recipe({**RESNET, "method": "rtn"})
    with pytest.raises(VqzooError, match=r"does not see .*: put --out on a file system that all"):
        run(recipe, SilentWatcher(), out=tmp_path / "out", executor=elsewhere)
    assert list(tmp_path.iterdir()) == []
