"""The built site: readers see no Markdown, no fence and no formula's source."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from pages import ROOT, Chapter

DOCS = ROOT / "docs"
# Fences, emphasis, table rules, attribute lists, links, comments, formulas, doctests.
RAW = re.compile(r"```|\*\*|\|\s*:?---|\{[.:]|\]\(|<!--|\$\$|\\[(\[]|\\[a-z]+\{|>>>|doctest:")
VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
UNSEEN = {"script", "style", "title", "head", "annotation"}


@dataclass
class Visible(HTMLParser):
    """What a page shows: its prose, the texts of its code blocks and of its inline code."""

    prose: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "pre":
            self.blocks.append("")
        elif tag == "code" and "pre" not in self.path:
            self.inline.append("")
        if tag not in VOID:
            self.path.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if UNSEEN & set(self.path):
            return
        if "pre" in self.path:
            self.blocks[-1] += data
        elif "code" in self.path:
            self.inline[-1] += data
        else:
            self.prose.append(data)


def visible(html: str) -> Visible:
    parser = Visible()
    parser.feed(html)
    parser.close()
    return parser


Site = dict[str, Visible]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Every page by its address: "" is the home page, "finetune" another."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return {
        path.parent.relative_to(folder).as_posix(): visible(path.read_text(encoding="utf-8"))
        for path in folder.rglob("index.html")
    }


def address(page: Path) -> str:
    name = page.relative_to(DOCS).with_suffix("").as_posix()
    return "." if name == "index" else name


def test_no_page_shows_raw_markup(site: Site) -> None:
    assert len(site) >= 20
    for name, page in site.items():
        assert not RAW.findall(" ".join(page.prose)), name
        assert not [code for code in page.inline if "```" in code or "$" in code], name


def test_every_fenced_block_is_a_block_of_code(site: Site) -> None:
    pages = [*DOCS.glob("*.md"), *(DOCS / "methods").glob("*.md")]
    slow = 0
    for path in pages:
        shown = [text.strip() for text in site[address(path)].blocks]
        for block in Chapter(path.stem, path.read_text(encoding="utf-8")).blocks():
            assert block.text.strip() in shown, (path.name, block.info)
            slow += block.slow
    assert slow >= 6


def test_formulas_become_mathml(site: Site) -> None:
    page = (DOCS / "methods/pq.md").read_text(encoding="utf-8")
    assert "$$" in page
    assert "∈" in "".join(site["methods/pq"].prose)  # \in


@pytest.mark.parametrize(
    "markdown",
    ["```sh slow\nvqzoo methods\n```", "a ** b", "|---|", "$$x$$", r"\(x\)", "text{.sh}", "[a](b"],
)
def test_raw_markup_is_noticed(markdown: str) -> None:
    assert RAW.search(" ".join(visible(f"<body><p>{markdown}</p></body>").prose))
