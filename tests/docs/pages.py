"""What the pages show: blocks to run, and commands in their sentences."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import vqzoo

SLOW = "VQZOO_SLOW_DOCS" in os.environ  # set it to run what takes minutes, too
ROOT = Path(vqzoo.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs/methods").glob("*.md"))
PAGES += [  # their commands are typed in where the distributions are tested
    ROOT / "docs/example_plugin/README.md",
    ROOT / "vqzoo/scaffold/template/README.md.tmpl",
]

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(vqzoo\s[^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words behind its fence, and its text."""

    info: tuple[str, ...]
    text: str

    @property
    def slow(self) -> bool:
        """Whether it takes minutes, and says so."""
        return "slow" in self.info

    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block; `&&` joins several."""
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
    """Blocks that are run in order, in one folder."""

    title: str
    text: str

    def blocks(self) -> list[Block]:
        """All of them."""
        return [Block(tuple(i.split()), text) for i, text in _FENCED.findall(self.text)]

    def sentences_commands(self) -> list[list[str]]:
        """Commands outside the blocks; dots stand for whatever goes there."""
        prose = _FENCED.sub("", self.text)
        found = [" ".join(text.split()) for text in _INLINE.findall(prose)]
        return [[word for word in shlex.split(text) if word not in ("...", "…")] for text in found]


def chapters() -> list[Chapter]:
    """Each page; README's sections one by one, since a reader takes one of them up by itself."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        parts = re.split(r"^(?=## )", text, flags=re.MULTILINE) if page.stem == "README" else [text]
        for part in parts:
            heading = part.partition("\n")[0].strip("# ")
            found.append(Chapter(f"{page.stem}: {heading}", part))
    return found
