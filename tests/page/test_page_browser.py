"""The page in a real browser, where one is installed."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import HOSTILE, write_report, write_reports

from vqzoo.artifact.files import sha256_file
from vqzoo.page.write import make_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or "VQZOO_BROWSER" not in os.environ,
    reason="needs Chromium and VQZOO_BROWSER=1",
)
POINTS = "#chart .points_marks path"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, made: Path, tmp_path: Path) -> Iterator[Any]:
    """The page of three runs; no test may leave a message, a dialog or a request behind."""
    write_reports(tmp_path / "runs", json.loads((made / "report.json").read_text()))
    page, problems = open_page(browser, tmp_path / "runs")
    page.wait_for_selector(POINTS)
    yield page
    page.context.close()
    assert problems == []


def open_page(browser: Any, folder: Path, **context: Any) -> tuple[Any, list[str]]:
    file = folder.parent / "report.html"
    file.write_text(make_page([folder])[1])
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(120_000)  # machines are busy
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append("dialog"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: None if request.url == file.as_uri() or request.url.startswith("data:")
        else problems.append(request.url),
    )  # fmt: skip
    page.goto(file.as_uri())
    return page, problems


def rows(page: Any, column: str = "Folder") -> list[str]:
    script = """title => {
        const titles = [...document.querySelectorAll('#runs thead th')].map(th => th.textContent);
        return [...document.querySelectorAll('#runs tbody tr')].map(
            row => row.children[titles.indexOf(title)].textContent);
    }"""
    return page.evaluate(script, column)


def test_figures_of_retrieval_have_an_axis_and_columns(
    browser: Any, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "runs/pq-8x")
    shutil.copytree(made, tmp_path / "runs/other")
    point = {
        "map": 90.5, "change": -0.25, "ci95": 0.125, "asymmetric_map": 90.0, "folder": "pq-8x",
        "asymmetric_change": -0.75, "asymmetric_ci95": 0.25,
        "sha256": sha256_file(made / "vqzoo.safetensors"),
    }  # fmt: skip
    comparison = {"data": "fmnist", "queries": 2500, "dense_map": 90.75, "points": [point]}
    (tmp_path / "runs/retrieval.json").write_text(json.dumps(comparison))
    page, problems = open_page(browser, tmp_path / "runs")
    page.wait_for_selector("#runs tbody tr")
    assert sorted(rows(page, "mAP lost")) == ["0.25 ± 0.13", "–"]
    page.select_option("#y", "map_lost")
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length === 1")
    page.goto(page.url + "#artifact-1")
    page.wait_for_selector("#details-title")
    text = page.locator("#details dl.facts").inner_text()
    assert "90.50%, dense 90.75%; lost 0.25 ± 0.13" in text
    assert "90.00%; lost 0.75 ± 0.25" in text
    page.context.close()
    assert problems == []


def test_the_chart_and_the_tables_show_every_run(page: Any) -> None:
    assert page.locator(POINTS).count() == 3
    assert sorted(rows(page)) == ["deep/second", "first", "third"]
    assert page.locator("#networks tbody tr").count() == 3
    assert page.locator("main, header, footer").count() == 3
    assert page.locator("table caption").count() == page.locator("table").count()
    label = page.locator(POINTS).first.get_attribute("aria-label")
    assert "points lost" in label


def test_filters_change_rows_and_points(page: Any) -> None:
    page.locator("#networks label", has_text="one.tag").locator("input").uncheck()
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length == 2")
    assert sorted(rows(page)) == ["deep/second", "third"]
    assert page.text_content("#count") == "2 of 3 artifacts"
    page.click("#reset")
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length == 3")
    page.select_option("#y", "kl")
    page.wait_for_function(f"document.querySelectorAll('{POINTS}').length == 1")
    assert "2 artifacts without KL left out" in page.text_content("#chart-note")


def test_headings_sort(page: Any) -> None:
    def sort_by(title: str) -> tuple[list[str], str]:
        page.click(f"#runs thead button:text-is('{title}')")
        heading = page.locator("#runs th", has=page.locator(f"button:text-is('{title}')"))
        return rows(page), heading.get_attribute("aria-sort")

    assert rows(page)[0] == "deep/second"  # the smallest file
    assert sort_by("Folder") == (["deep/second", "first", "third"], "ascending")
    assert sort_by("Folder") == (["third", "first", "deep/second"], "descending")
    order, direction = sort_by("Points lost")
    assert (order[-1], direction) == ("deep/second", "ascending")
    assert page.locator("#runs th[aria-sort=ascending]").count() == 1


def test_the_front_is_what_nothing_beats(page: Any) -> None:
    assert dict(zip(rows(page), rows(page, "Front"), strict=True)) == {
        "first": "● yes", "deep/second": "● yes", "third": "● yes",
    }  # fmt: skip
    page.select_option("#front", "all")
    front = dict(zip(rows(page), rows(page, "Front"), strict=True))
    assert front["deep/second"] == "● yes"
    assert list(front.values()).count("● yes") == 2  # two are equal, and one of them is enough


def test_a_click_or_enter_opens_the_layers(page: Any, made: Path) -> None:
    layers = json.loads((made / "report.json").read_text())["layers"]
    page.click("#runs tbody tr:has-text('two.tag') td >> nth=3")
    page.wait_for_selector("#bars path")
    assert page.locator("#layers tbody tr").count() == len(layers)
    assert page.evaluate("document.activeElement.id") == "details-title"
    page.click("#close")
    assert not page.is_visible("#details")
    assert page.evaluate("document.activeElement.textContent") == "two.tag"
    page.locator(f"{POINTS}[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#details-title")
    assert "#artifact-" in page.url
    page.go_back()
    page.wait_for_selector("#details", state="hidden")
    page.locator(POINTS).first.click(force=True)
    page.wait_for_selector("#details-title")


def test_pointing_at_a_point_shows_its_command(page: Any) -> None:
    page.locator(f"{POINTS}[aria-label^='deep/second']").hover()
    page.wait_for_selector("#tip")
    assert "vqzoo run" in page.text_content("#tip code")


def test_hostile_text_is_shown_as_text(page: Any) -> None:
    page.click("#runs tbody tr:has-text('third')")
    page.wait_for_selector("#bars path")
    assert page.text_content("#details .command code") == HOSTILE
    assert HOSTILE in page.locator("#layers tbody tr").first.text_content()
    assert page.locator("img").count() == 0


def test_both_themes_and_small_screens(browser: Any, made: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "run", json.loads((made / "report.json").read_text()))
    colors = set()
    for scheme in ("light", "dark"):
        view = {"width": 390, "height": 844}
        page, problems = open_page(browser, tmp_path / "run", color_scheme=scheme, viewport=view)
        page.wait_for_selector("#runs tbody tr")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        color = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(color)
        page.click("#theme")
        assert page.evaluate(color) != before
        colors.add(before)
        page.context.close()
        assert problems == []
    assert len(colors) == 2
