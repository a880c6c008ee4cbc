"""The code blocks of README and docs, and the commands in their sentences."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import vqzoo

RUN_SLOW_BLOCKS = "VQZOO_SLOW_DOCS" in os.environ
ROOT = Path(vqzoo.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs/methods").glob("*.md"))
PAGES += [  # tests/distributions runs the commands of these two
    ROOT / "docs/example_plugin/README.md",
    ROOT / "vqzoo/scaffold/template/README.md.tmpl",
]

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(vqzoo\s[^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words of its info string, and its text."""

    info: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        """The first word of its info string, or nothing."""
        return self.info[0] if self.info else ""

    @property
    def slow(self) -> bool:
        """Whether it takes minutes, as its info string says."""
        return "slow" in self.info

    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block; `&&` joins commands on one line."""
        for line in self.text.splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word != "&&":
                    words.append(word)
                elif words:
                    yield words
                    words = []


@dataclass(frozen=True)
class Chapter:
    """A page or a section whose blocks run in order, in one folder."""

    title: str
    text: str

    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return [Block(tuple(i.split()), text) for i, text in _FENCED.findall(self.text)]

    def sentences_commands(self) -> list[list[str]]:
        """The words of the commands outside the blocks, without dots that stand for arguments."""
        prose = _FENCED.sub("", self.text)
        texts = [" ".join(text.split()) for text in _INLINE.findall(prose)]
        return [[word for word in shlex.split(text) if word not in ("...", "…")] for text in texts]


def chapters() -> list[Chapter]:
    """Every page; of a README, every section, since readers may start at any of them."""
    result = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        parts = re.split(r"^(?=## )", text, flags=re.MULTILINE) if page.stem == "README" else [text]
        for part in parts:
            heading = part.partition("\n")[0].strip("# ")
            result.append(Chapter(f"{page.stem}: {heading}", part))
    return result
