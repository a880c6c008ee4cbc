"""The model card reports what was recorded, and no string in it can become markup."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from vqzoo.artifact.reader import open_artifact
from vqzoo.plugin.manager import installed_plugins
from vqzoo.report.card import render_card, write_card
from vqzoo.report.card_plot import draw_bytes
from vqzoo.report.markdown import code, plain, table
from vqzoo.report.record import Record
from vqzoo.report.record_file import read_record
from vqzoo.testing.hub.card import metadata_errors


@pytest.fixture
def record(made: Path) -> Record:
    record = read_record(open_artifact(made))
    assert record is not None
    return record


def changed(record: Record, **fields: object) -> Record:
    return Record.model_validate(record.to_dict() | fields)


def card_of(folder: Path, record: Record | None, **config: object) -> ModelCard:
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


def test_a_run_writes_its_card(made: Path, record: Record) -> None:
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
    for layer in record.layers:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{layer.name}` |")]
        assert line.endswith(f"| {layer.ratio:.1f}x | {layer.sqnr_db:.2f} | {layer.bytes:,} |")
    assert "arXiv 1412.6115" in text
    assert "[image]: " not in text


def test_layers_are_listed_in_the_order_of_the_model(made: Path, record: Record) -> None:
    """Headers sort them by name: "fc" before "layer1"."""
    names = re.findall(r"^\| `([^`]+)` \|", (made / "README.md").read_text(), re.MULTILINE)
    assert names == [layer.name for layer in record.layers]
    assert names != sorted(names)


def test_a_card_without_a_record_leaves_out_what_only_a_run_knows(made: Path) -> None:
    text = str(card_of(made, None))
    assert "With `vqzoo.compress`, from a model in memory" in text
    assert "was not measured" in text
    assert "SQNR" not in text
    assert "whole file |" not in text


def test_accuracy_is_in_the_metadata(made: Path, record: Record) -> None:
    card = card_of(made, changed(record, accuracy=ACCURACY))
    first, second = card.data.eval_results
    assert (first.metric_name, first.metric_value) == ("top-1", 90.25)
    assert (second.metric_name, second.metric_value) == ("top-5", 99.5)
    assert first.dataset_type == "zalando-datasets/fashion_mnist"
    assert "| top-1 | 90.50% | 90.25% | -0.25 ± 0.31 points |" in str(card)
    assert "| top-5 | 99.75% | 99.50% | -0.25 points |" in str(card)
    assert "10,000 images of Fashion-MNIST, test split" in str(card)
    assert "not measured" not in str(card).partition("## What it costs to run")[0]


def test_without_labels_the_card_reports_agreement(made: Path, record: Record) -> None:
    agreement = {"data": "imagefolder:holiday", "images": 30, "top1": 96.67, "kl": 0.0123}
    card = card_of(made, changed(record, agreement=agreement))
    assert card.data.eval_results is None
    assert "was not measured" in str(card)
    assert "96.67%" in str(card)
    assert "0.0123 nats" in str(card)


@pytest.mark.parametrize(
    ("license", "shown", "name"),
    [
        ("apache-2.0", "apache-2.0", None),
        ("Timm Special 1", "other", "Timm Special 1"),
        (None, "unknown", None),
        (["mit"], "unknown", None),
    ],
)
def test_licences(
    made: Path, record: Record, license: object, shown: str, name: str | None
) -> None:
    data = card_of(made, record, cfg={"license": license}).data
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
def test_only_pretrained_weights_have_a_base_model(
    made: Path, record: Record, weights: str, hub_id: str | None, base: str | None
) -> None:
    data = card_of(made, record, cfg={"hf_hub_id": hub_id}, weights=weights).data
    assert data.get("base_model") == base
    assert data.get("base_model_relation") == ("quantized" if base else None)


def test_hostile_strings_stay_text(made: Path, record: Record) -> None:
    evil = "x`|\n---\nlicense: mit\n# <script>alert(1)</script> [a](http://evil.example) ![b](c)"
    first, *others = record.to_dict()["layers"]
    hostile = changed(
        record,
        model=evil,
        skipped={evil: evil},
        accuracy={**ACCURACY, "data": f"imagefolder:{evil}"},
        layers=[{**first, "name": evil}, *others],
    )
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


def test_the_plot_depends_on_the_artifact_alone(
    made: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_bytes(open_artifact(made), tmp_path / "a.png")
    draw_bytes(open_artifact(made), tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert Image.open(tmp_path / "a.png").size[0] == 800
    monkeypatch.setattr("vqzoo.report.card.draw_bytes", draw_bytes)
    write_card(artifact, installed_plugins())
    assert data == (tmp_path / "b.png").read_bytes() == (artifact / "bytes.png").read_bytes()
