"""The Hub from the command line, end to end; the snippet of the card runs in its own process."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.testing.hub.client import use_hub
from vqzoo.testing.hub.server import HubServer

REPO = "org/tiny-pq"
RUN = "run test_resnet --checkpoint mine.safetensors -m pq -o k=16 -o d=4 --data imagefolder:images"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(part_size=40_000) as server:
        use_hub(server, tmp_path / "hf", monkeypatch)
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with weights and some labelled images for a network of three classes."""
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=3)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    random = np.random.default_rng(0)
    for name in ("cats", "dogs", "owls"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path


def call(line: str) -> str:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_run_push_search_pull_evaluate_and_load_as_the_card_says(
    hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    record = json.loads(
        call(f"{RUN} --model-arg num_classes=3 --layers all --out made --push {REPO} --json")
    )
    assert record["accuracy"]["images"] == 12
    assert set(hub.files(REPO)) == {"config.json", "vqzoo.safetensors", "README.md", "bytes.png"}
    assert len([e for e in hub.exchanges if e.method == "PUT"]) > 1  # in parts

    (listed,) = json.loads(call("search tiny pq --json"))
    assert listed["repo"] == REPO
    assert listed["model"] == "test_resnet"
    assert listed["bytes"] == record["bytes"]["file"]
    assert listed["top1"] == pytest.approx(record["accuracy"]["compressed"]["top1"], abs=1e-3)
    assert listed["data"] == "images"
    call(f"pull {REPO}@main --out mine")
    for name in ("config.json", "vqzoo.safetensors"):
        assert (home / "mine" / name).read_bytes() == (home / "made" / name).read_bytes()
    measured = json.loads(call(f"eval {REPO} --data imagefolder:images --json"))
    assert measured["top1"] == record["accuracy"]["compressed"]["top1"]
    assert_snippet_works(hub, home)


def assert_snippet_works(hub: HubServer, home: Path) -> None:
    card = hub.files(REPO)["README.md"].decode()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    Image.open(home / "images/cats/0.png").save(home / "image.jpg")
    done = subprocess.run(
        [sys.executable, "-c", snippet + "print(tuple(logits.shape), model.vqzoo_commit)"],
        cwd=home,
        env={**os.environ, **hub.environment(home / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["(1,", "3)", hub.repos[REPO].branches["main"]], done.stderr
