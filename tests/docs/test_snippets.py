"""What README and docs tell readers to type works: their blocks, in order, in one folder."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import yaml
from pages import ROOT, SLOW, Block, Chapter, chapters
from typer.testing import CliRunner

from tools import train_alexnet_mini
from vqzoo.cli.main import app
from vqzoo.runs.recipe import make_recipe

CHAPTERS = [chapter for chapter in chapters() if chapter.blocks()]
RUN_HERE = {"sh", "python", "yaml"}
SHOWN_ONLY = {"json", ""}  # formats and drawings

# Networks and images that are downloaded, and their stand-ins here.
STAND_INS = {
    "run resnet18 ": "run test_resnet --checkpoint mine.safetensors ",
    "run vgg16 ": "run alexnet_mini.fmnist ",
    '"resnet18", pretrained=True': '"test_resnet"',
    "--train-data fmnist:FOLDER": "--train-data fmnist",
    "zoo build alexnet-": "zoo build --recipes recipes alexnet-",
}
BY_CI = {"pip", "pytest", "ruff", "mypy"}  # .ci/run runs them


def with_stand_ins(text: str) -> str:
    for there, here in STAND_INS.items():
        text = text.replace(there, here)
    return text


def type_in(words: list[str]) -> None:
    line = shlex.join(words)
    if words[0] in BY_CI:
        return
    if words[:3] == ["python", "-m", "tools.train_alexnet_mini"]:
        train_alexnet_mini._parse(words[3:])  # it takes hours; tests/zoo/test_training.py trains
        return
    if words[-2:] == ["--to", "onnx"] and importlib.util.find_spec("onnxruntime") is None:
        return
    assert words[0] == "vqzoo", f"the docs tell readers to type {line!r}"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


def run_block(block: Block, names: dict[str, object]) -> None:
    shown = Block(block.info, with_stand_ins(block.text))
    if block.info[0] == "sh":
        for words in shown.commands():
            type_in(words)
    elif block.info[0] == "yaml":
        make_recipe(yaml.safe_load(shown.text))  # it is read; the pages run the same as commands
    else:
        exec(compile(shown.text, "snippet", "exec"), names)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
def test_blocks(chapter: Chapter, reader: Path) -> None:
    names: dict[str, object] = {}
    for block in chapter.blocks():
        if block.info and block.info[0] in RUN_HERE and (SLOW or not block.slow):
            run_block(block, names)


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.title)
def test_no_block_goes_untried(chapter: Chapter) -> None:
    for block in chapter.blocks():
        language = block.info[0] if block.info else ""
        assert language in RUN_HERE | SHOWN_ONLY, f"nothing runs {block.info}: {block.text}"
        if language not in RUN_HERE:
            assert "vqzoo run" not in block.text


def test_what_is_left_to_ci_is_done_there() -> None:
    script = (ROOT / ".ci/run").read_text()
    for chapter in CHAPTERS:
        for block in chapter.blocks():
            if block.info[:1] != ("sh",):
                continue
            for words in block.commands():
                if words[0] in BY_CI - {"pip"} and "tests/benchmarks" not in words:
                    assert f"\n{shlex.join(words)}\n" in script, words


def test_every_stand_in_is_needed() -> None:
    text = "".join(chapter.text for chapter in CHAPTERS)
    assert [there for there in STAND_INS if there not in text] == []


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.title)
def test_commands_in_sentences_are_understood(chapter: Chapter) -> None:
    """They name commands and options that there are."""
    for words in chapter.sentences_commands():
        understand(words[1:])


def test_commands_in_help_texts_are_understood() -> None:
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).stdout
    examples = [line.strip() for line in text.splitlines() if line.startswith(" vqzoo ")]
    assert len(examples) >= 3
    for line in examples:
        understand(shlex.split(line)[1:])


def understand(words: list[str]) -> None:
    """Parse a command line and run nothing: --help comes before all but unknown names."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"


def test_commands_that_there_are_not_are_noticed() -> None:
    understand(["zoo", "build", "--dry-run"])
    for words in (["runn", "x"], ["run", "x", "--no-such"], ["zoo", "build", "--no-such"]):
        with pytest.raises(AssertionError, match="No such"):
            understand(words)


def test_pages_have_blocks() -> None:
    counts: dict[str, int] = {}
    for chapter in CHAPTERS:
        page = chapter.title.partition(":")[0]
        counts[page] = counts.get(page, 0) + len(chapter.blocks())
    assert counts["README"] >= 7
    assert counts["index"] >= 5
    assert counts["compress"] >= 4
    assert counts["hub"] >= 5
    assert counts["write-a-plugin"] >= 3
