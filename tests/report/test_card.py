"""The model card says what was recorded, and nothing that anybody wrote can become markup."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from vqzoo.artifact.reader import open_artifact
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import read_record, render_card
from vqzoo.report.card_plot import draw_bytes
from vqzoo.report.markdown import code, plain, table
from vqzoo.testing.hub.card import metadata_errors


@pytest.fixture
def record(made: Path) -> dict:
    found = read_record(open_artifact(made))
    assert found is not None
    return found


def card_of(folder: Path, record: dict | None, **config: object) -> ModelCard:
    from dataclasses import replace

    artifact = open_artifact(folder)
    cfg = {**artifact.config["pretrained_cfg"], **config.pop("cfg", {})}
    artifact = replace(artifact, config={**artifact.config, "pretrained_cfg": cfg})
    if config:
        artifact = replace(artifact, block=artifact.block.model_copy(update=config))
    text = render_card(artifact, record, installed_plugins())
    assert metadata_errors(text) == []
    return ModelCard(text)


ACCURACY = {
    "data": "fmnist",
    "images": 10_000,
    "dense": {"top1": 90.5, "top5": 99.75},
    "compressed": {"top1": 90.25, "top5": 99.5},
    "difference": {"top1": -0.25, "ci95": 0.31},
}


def test_a_run_leaves_its_card(made: Path, record: dict) -> None:
    text = (made / "README.md").read_text()
    assert text == str(card_of(made, record))
    data = ModelCard(text).data
    assert data.library_name == "vqzoo"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["vqzoo", "timm", "pq"]
    assert data.license == "unknown"
    assert data.get("base_model") is None
    assert data.eval_results is None
    assert data["vqzoo"]["bytes"] == (made / "vqzoo.safetensors").stat().st_size
    assert "was not measured" in text
    assert str(made.parent) not in text
    assert "vqzoo run test_resnet --checkpoint mine.safetensors --method pq" in text
    for row in record["layers"]:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{row['name']}` |")]
        assert line.endswith(f"| {row['ratio']:.1f}x | {row['sqnr_db']:.2f} | {row['bytes']:,} |")
    assert "arXiv 1412.6115" in text
    assert "[image]: " not in text


def test_what_was_measured_is_in_the_metadata(made: Path, record: dict) -> None:
    card = card_of(made, {**record, "accuracy": ACCURACY})
    first, second = card.data.eval_results
    assert (first.metric_name, first.metric_value) == ("top-1", 90.25)
    assert (second.metric_name, second.metric_value) == ("top-5", 99.5)
    assert first.dataset_type == "zalando-datasets/fashion_mnist"
    assert "| top-1 | 90.50% | 90.25% | -0.25 ± 0.31 points |" in str(card)
    assert "10,000 images of Fashion-MNIST, test split" in str(card)
    assert "not measured" not in str(card).partition("## What it costs")[0]


def test_without_labels_agreement_is_told_and_no_accuracy(made: Path, record: dict) -> None:
    agreement = {"data": "imagefolder:holiday", "images": 30, "top1": 96.67, "kl": 0.0123}
    card = card_of(made, {**record, "agreement": agreement})
    assert card.data.eval_results is None
    assert "was not measured" in str(card)
    assert "96.67%" in str(card)


@pytest.mark.parametrize(
    ("given", "shown", "name"),
    [
        ("apache-2.0", "apache-2.0", None),
        ("Timm Special 1", "other", "Timm Special 1"),
        (None, "unknown", None),
        (["mit"], "unknown", None),
    ],
)
def test_licences(made: Path, record: dict, given: object, shown: str, name: str | None) -> None:
    data = card_of(made, record, cfg={"license": given}).data
    assert data.license == shown
    assert data.get("license_name") == name


@pytest.mark.parametrize(
    ("weights", "hub_id", "base"),
    [
        ("pretrained", "timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"),
        ("pretrained", "../x", None),
        ("pretrained", None, None),
        ("checkpoint:mine.safetensors", "timm/resnet18.a1_in1k", None),
    ],
)
def test_a_base_model_only_where_there_is_one(
    made: Path, record: dict, weights: str, hub_id: str | None, base: str | None
) -> None:
    data = card_of(made, record, cfg={"hf_hub_id": hub_id}, weights=weights).data
    assert data.get("base_model") == base
    assert data.get("base_model_relation") == ("quantized" if base else None)


def test_hostile_strings_stay_text(made: Path, record: dict) -> None:
    evil = "x`|\n---\nlicense: mit\n# <script>alert(1)</script> [a](http://evil.example) ![b](c)"
    hostile = json.loads(json.dumps(record))
    hostile["model"] = evil
    hostile["skipped"] = {evil: evil}
    hostile["accuracy"] = {**ACCURACY, "data": f"imagefolder:{evil}"}
    hostile["layers"][0]["name"] = evil
    card = card_of(made, hostile, cfg={"license": evil}, method="m" + evil[:100])
    assert card.data.license == "other"
    body = re.sub(r"```.*?```", "", card.text, flags=re.DOTALL)
    outside_code = re.sub(r"`[^`\n]*`", "", body)
    assert not re.search(r"(?<!\\)<script", outside_code)
    assert not re.search(r"(?<!\\)\]\(http://evil", outside_code)
    assert "\n# <" not in body
    assert "\nlicense: mit" not in str(card).partition("\n---\n\n")[2]


def test_markdown_of_hostile_text() -> None:
    assert plain("a_b*c\nd") == r"a\_b\*c d"
    assert plain("see http://x.y and www.z") == r"see http\://x.y and www\.z"
    assert code("a`b|c\n\x1b[31m") == "`a'b¦c [31m`"
    assert plain("x" * 500, 10) == "x" * 9 + "…"
    assert table(("a", "b"), [("1", "2")], right=(1,)) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_the_picture_is_the_same_each_time(made: Path, tmp_path: Path) -> None:
    artifact = open_artifact(made)
    draw_bytes(artifact, tmp_path / "a.png")
    draw_bytes(artifact, tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data == (tmp_path / "b.png").read_bytes() == (made / "bytes.png").read_bytes()
