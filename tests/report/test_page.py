"""The page in a browser, without a network: what it shows, and that everything works with mouse and keys."""

from collections.abc import Callable
from typing import Any

import pytest

from birder.data.samples import Samples
from birder.report.assembled import build_report
from birder.report.sources import Source

Report = dict[str, Any]
Opened = Callable[..., Any]

CLICKED = """button => {
    const start = performance.now();
    button.click();
    button.offsetHeight;
    return performance.now() - start;
}"""
"""Milliseconds until what follows a click is laid out."""


def column(page: Any, table: int, number: int) -> list[str]:
    """The texts of a column of the how-manieth table."""
    rows = page.locator(".scroll table").nth(table).locator("tbody tr:not(.gap)")
    return [str(text) for text in rows.locator(f":scope > :nth-child({number})").all_inner_texts()]


def number_of(text: str) -> float:
    return float(text.replace("%", "").replace("\u202f", "").strip() or "nan")


def test_hostile_names_are_shown_and_do_nothing(opened: Opened, report: Report) -> None:
    page = opened(report)
    assert page.evaluate("window.hacked") is None
    assert page.locator("h1").inner_text() == "A <b>report</b> & more"
    assert set(column(page, 0, 1)) == set(report["names"])
    assert "Fam <i>one</i>" in column(page, 0, 8)
    assert page.locator("main img[src='x'], main b, main i, main script").count() == 0


def test_the_tiles_are_the_numbers(opened: Opened, report: Report) -> None:
    page = opened(report)
    value, low, high = report["sources"][0]["summary"]["estimates"]["top1"]
    tile = page.locator("#figure-top1")
    assert number_of(tile.locator(".value").inner_text()) == pytest.approx(100 * value, abs=0.06)
    first, last = tile.locator(".range").inner_text().split(" to ")
    assert (number_of(first), number_of(last)) == pytest.approx((100 * low, 100 * high), abs=0.06)


def test_sorting_by_mouse_and_keys(opened: Opened, report: Report) -> None:
    page = opened(report)
    heads = page.locator(".scroll table").first.locator("thead th")
    assert heads.nth(4).get_attribute("aria-sort") == "ascending"  # F1, worst first
    worst = [number_of(text) for text in column(page, 0, 5)]
    assert worst == sorted(worst)
    heads.nth(4).locator("button").click()
    assert heads.nth(4).get_attribute("aria-sort") == "descending"
    assert [number_of(text) for text in column(page, 0, 5)] == worst[::-1]
    heads.nth(0).locator("button").focus()
    page.keyboard.press("Enter")
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    assert heads.nth(4).get_attribute("aria-sort") == "none"
    names = column(page, 0, 1)
    page.keyboard.press("Space")
    assert column(page, 0, 1) == names[::-1]


def test_filtering(opened: Opened, report: Report) -> None:
    page = opened(report)
    page.get_by_label("Filter: How each species fared").fill("<SCRIPT")
    assert set(column(page, 0, 1)) == {name for name in report["names"] if "<script" in name}
    assert page.locator("#species .count").first.inner_text() == "2 of 8 species"


def test_the_matrix_tells_what_is_pointed_at(opened: Opened, report: Report) -> None:
    page = opened(report)
    source = report["sources"][0]
    canvas = page.locator("#confusion canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    order, side = source["orders"]["similar"], (box["width"] - 150) / 8
    cells = dict(
        zip(
            zip(source["confusion"]["label"], source["confusion"]["predicted"], strict=True),
            source["confusion"]["count"],
            strict=True,
        )
    )
    places = [(order.index(label), order.index(taken)) for label, taken in cells if label != taken]
    one_way = [(row, across) for row, across in places if (order[across], order[row]) not in cells]
    for row, across in ((2, 2), *one_way[:4], *((across, row) for row, across in one_way[:4])):
        page.mouse.move(box["x"] + 150 + (across + 0.5) * side, box["y"] + 150 + (row + 0.5) * side)
        readout = page.locator("#confusion .readout").inner_text()
        assert readout.startswith(report["names"][order[row]])
        assert f" {cells.get((order[row], order[across]), 0)} of 8 pictures" in readout
    canvas.focus()
    page.keyboard.press("n")
    mistakes = {pair: count for pair, count in cells.items() if pair[0] != pair[1]}
    assert f": {max(mistakes.values())} of 8 pictures" in page.locator("#confusion .readout").inner_text()
    before = canvas.screenshot()
    page.keyboard.press("+")
    assert canvas.screenshot() != before
    page.keyboard.press("0")
    page.get_by_label("By name").check(force=True)
    page.keyboard.press("Tab")


def test_a_picture_opens_with_its_names(opened: Opened, report: Report) -> None:
    page = opened(report)
    first = report["pictures"][report["sources"][0]["galleries"]["mistakes"][0]]
    second = report["pictures"][report["sources"][0]["galleries"]["mistakes"][1]]
    page.locator("#panel-mistakes .thumb").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("h2").inner_text() == report["names"][first["label"]]
    names = [report["names"][label] for label, _ in first["answers"][0]]
    assert dialog.locator(".bars .title").all_inner_texts() == names
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text() == report["names"][second["label"]]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className").startswith("thumb")


def test_what_it_looked_at_can_be_hidden(opened: Opened, with_map: Report) -> None:
    page = opened(with_map)
    page.locator("#panel-mistakes .thumb").first.click()
    canvas = page.locator("dialog canvas[data-heat=shown]")
    canvas.wait_for()
    page.get_by_label("Show what it looked at").uncheck()
    page.locator("dialog canvas[data-heat='']").wait_for()


def test_galleries_are_tabs(opened: Opened, report: Report) -> None:
    page = opened(report)
    tabs = page.get_by_role("tab")
    assert tabs.count() == 4 and tabs.first.get_attribute("aria-selected") == "true"
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-certain").is_visible() and not page.locator("#panel-mistakes").is_visible()
    shown = page.locator("#panel-certain .thumb").count()
    assert shown == len(report["sources"][0]["galleries"]["certain"])


def test_the_slider_says_what_silence_buys(opened: Opened, report: Report) -> None:
    page = opened(report)
    curve = report["sources"][0]["calibration"]["coverage"]
    slider = page.get_by_label("Least confidence")
    for least in (0.5, 0.8):
        slider.fill(str(least))
        last = [place for place, threshold in enumerate(curve["threshold"]) if threshold >= least][-1]
        answered, right = (round(100 * curve[name][last]) for name in ("coverage", "accuracy"))
        sentence = page.locator(".sentence").inner_text().replace("\u202f", " ")
        assert sentence == (
            f"If it answers only above {least:.2f}, it answers {answered} % of the pictures "
            f"and is right in {right} % of these."
        )
    slider.press("ArrowRight")
    assert "0.81" in page.locator(".sentence").inner_text()


def test_the_map_shows_the_picture_that_is_pointed_at(opened: Opened, with_map: Report) -> None:
    page = opened(with_map)
    canvas = page.locator("#map .view canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    part = with_map["sources"][0]["map"]
    place = part["x"].index(sorted(part["x"])[len(part["x"]) // 2])  # there are others on both sides
    across = 0.5 + 0.96 * (part["x"][place] - max(part["x"]) / 2)
    down = 0.96 * (part["y"][place] - max(part["y"]) / 2)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * across, middle + box["width"] * down)
    assert page.locator(".preview").get_attribute("data-picture") == str(part["pictures"][place])
    assert page.locator("#map .readout").inner_text().startswith(with_map["names"][part["label"][place]])
    canvas.focus()
    for key, further in (("ArrowRight", True), ("ArrowLeft", False)):
        before = part["x"][int(page.locator(".preview").get_attribute("data-picture"))]
        page.keyboard.press(key)
        after = part["x"][int(page.locator(".preview").get_attribute("data-picture"))]
        assert (after > before) == further


def test_light_and_dark(opened: Opened, report: Report) -> None:
    page = opened(report, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 26)"
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) == "rgb(251, 250, 246)"


def test_on_paper_everything_is_open(opened: Opened, report: Report) -> None:
    page = opened(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("[role=tabpanel]:visible").count() == 4
    assert page.locator("details").count() == page.locator("details[open]").count()
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_on_a_phone_nothing_is_wider_than_the_screen(opened: Opened, with_map: Report) -> None:
    page = opened(with_map, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_two_sources(opened: Opened, pictures: Callable[..., Samples], source: Callable[..., Source]) -> None:
    samples = pictures(("Emu", "Magpie", "Wren"), each=10)
    report = build_report([source(samples, skill=3.0), source(samples, name="<b>other.csv", skill=0.5, seed=1)])
    page = opened(report)
    top1 = page.locator("#figure-top1 .value")
    for number in (0, 1):
        page.locator("nav .choice label").nth(number).click()
        value = report["sources"][number]["summary"]["estimates"]["top1"][0]
        assert number_of(top1.inner_text()) == pytest.approx(100 * value, abs=0.06)
    pair = report["comparison"]["pairs"][0]
    cells = page.locator("#compared .pair .plain tbody tr").locator("th, td").all_inner_texts()
    assert cells == [str(pair[name]) for name in ("both", "only_a", "only_b", "neither")]
    assert page.locator("#compared .gallery").first.locator("li").count() == len(pair["shown_first"])


def test_keys_reach_everything(opened: Opened, with_map: Report) -> None:
    page = opened(with_map)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.closest('section')?.id + ' ' + document.activeElement.tagName")
        )
    assert {
        "species INPUT",
        "species BUTTON",
        "confusion CANVAS",
        "trust INPUT",
        "pictures BUTTON",
        "map CANVAS",
    } <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(opened: Opened, with_map: Report, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = opened(with_map, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    for setup in ("", "document.querySelector('.thumb').click()"):
        page.evaluate(setup or "0")
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.slow
def test_ten_thousand_species(opened: Opened, report: Report) -> None:
    """Rendered, sorted and filtered, each in less than two seconds."""
    count, part = 10_000, report["sources"][0]
    report["names"] = [f"Species {number:05}" for number in range(count)]
    report["families"] = [f"Family {number % 97}" for number in range(count)]
    part["species"] = {
        name: [(number * 7919) % 1000 / 1000 if kind is float else (number * 7919) % 997 for number in range(count)]
        for name, kind in {
            "samples": int,
            "predicted": int,
            "precision": float,
            "recall": float,
            "f1": float,
            "wrong": int,
        }.items()
    } | {"label": list(range(count)), "taken": [-1] * count, "taken_count": [0] * count}
    page = opened(report)
    built = page.evaluate("performance.now()")
    assert built < 2000
    assert page.locator("#species .count").first.inner_text() == "10,000 species"
    for head in range(8):
        button = page.locator(".scroll table").first.locator("thead button").nth(head)
        assert button.evaluate(CLICKED) < 2000
    assert page.locator(".scroll table").first.locator("tbody tr").count() < 100
    scroll = page.locator(".scroll").first
    scroll.evaluate("(element) => { element.scrollTop = element.scrollHeight; }")
    page.wait_for_function(
        "document.querySelector('.scroll tbody tr:last-child').getAttribute('aria-rowindex') === '10001'"
    )
