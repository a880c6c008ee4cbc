"""The commands and snippets of README and docs work, in order, in one folder."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import yaml
from pages import ROOT, RUN_SLOW_BLOCKS, Block, Chapter, chapters
from typer.testing import CliRunner

from vqzoo.cli.main import app
from vqzoo.runs.recipe import make_recipe

CHAPTERS = [chapter for chapter in chapters() if chapter.blocks()]
EXECUTED = {"sh", "python", "yaml"}
SHOWN_ONLY = {"json", "text", ""}  # formats and drawings

# Downloads, and their stand-ins in these tests.
STAND_INS = {
    "run resnet18 ": "run test_resnet --checkpoint mine.safetensors ",
    "run vgg16 ": "run alexnet_mini.fmnist ",
    '"resnet18", pretrained=True': '"test_resnet"',
    "--train-data fmnist:FOLDER": "--train-data fmnist",
    "zoo build alexnet-": "zoo build --recipes recipes alexnet-",
}
RUN_BY_CI = {"pip", "pytest"}
ONNX_RUNS = importlib.util.find_spec("onnxruntime") is not None


def with_stand_ins(text: str) -> str:
    for download, stand_in in STAND_INS.items():
        text = text.replace(download, stand_in)
    return text


def type_in(words: list[str]) -> None:
    line = shlex.join(words)
    if words[0] in RUN_BY_CI:
        return
    if words[3:5] == ["--to", "onnx"] and not ONNX_RUNS:
        return
    assert words[0] == "vqzoo", f"the docs tell readers to type {line!r}"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


def run_block(block: Block, names: dict[str, object]) -> None:
    block = Block(block.info, with_stand_ins(block.text))
    if block.language == "sh":
        for words in block.commands():
            type_in(words)
    elif block.language == "yaml":
        make_recipe(yaml.safe_load(block.text))  # only parsed: the pages show it as a command, too
    elif ONNX_RUNS or "import onnxruntime" not in block.text:
        exec(compile(block.text, "snippet", "exec"), names)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
def test_blocks(chapter: Chapter, reader: Path) -> None:
    names: dict[str, object] = {}
    for block in chapter.blocks():
        if block.language in EXECUTED and (RUN_SLOW_BLOCKS or not block.slow):
            run_block(block, names)


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.title)
def test_no_block_is_left_untested(chapter: Chapter) -> None:
    for block in chapter.blocks():
        assert block.language in EXECUTED | SHOWN_ONLY, f"nothing runs {block}"
        if block.language not in EXECUTED:
            assert "vqzoo run" not in block.text


def test_ci_begins_with_the_test_command_of_the_readme() -> None:
    """CI adds nothing to it but a report of the slowest tests."""
    readme = next(chapter for chapter in CHAPTERS if "'.[test]'" in chapter.text)
    (block,) = [block for block in readme.blocks() if "pytest" in block.text]
    script = (ROOT / ".ci/run").read_text().splitlines()
    first, second, *_ = script[script.index("set -x") + 1 :]
    install, test = [shlex.join(words) for words in block.commands()]
    assert first == install.replace("pip install", "pip install -q")
    assert second == f"{test} --durations=20"


def test_every_stand_in_is_needed() -> None:
    text = "".join(chapter.text for chapter in CHAPTERS)
    assert [download for download in STAND_INS if download not in text] == []


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.title)
def test_commands_in_sentences_parse(chapter: Chapter) -> None:
    """They name commands and options that exist."""
    for words in chapter.sentences_commands():
        parse(words[1:])


def test_commands_in_help_texts_parse() -> None:
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).stdout
    examples = [line.strip() for line in text.splitlines() if line.startswith(" vqzoo ")]
    assert len(examples) >= 3
    for line in examples:
        parse(shlex.split(line)[1:])


def parse(words: list[str]) -> None:
    """Parse a command line without running it: --help precedes all but unknown names."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"


def test_commands_that_do_not_exist_are_noticed() -> None:
    parse(["zoo", "build", "--dry-run"])
    for words in (["runn", "x"], ["run", "x", "--no-such"], ["zoo", "build", "--no-such"]):
        with pytest.raises(AssertionError, match="No such"):
            parse(words)


def test_pages_have_blocks() -> None:
    counts: dict[str, int] = {}
    for chapter in CHAPTERS:
        page = chapter.title.partition(":")[0]
        counts[page] = counts.get(page, 0) + len(chapter.blocks())
    assert counts["README"] >= 4
    assert counts["index"] >= 5
    assert counts["compress"] >= 4
    assert counts["hub"] >= 4
    assert counts["deploy"] >= 5
    assert counts["write-a-plugin"] >= 3
