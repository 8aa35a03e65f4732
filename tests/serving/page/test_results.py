"""Results: named, in a table, reviewed, limited to a checklist, in the language of the reader."""

from typing import Any

import pytest

from birder.inference.results.layout import Layout
from tests.serving.live import Live
from tests.serving.page.visit import (
    GERMAN,
    SPECIES,
    Opened,
    Settled,
    answer_words,
    birds,
    downloaded,
    drop,
    labels_of,
)
from tests.serving.small import bird


def test_thirty_mixed_files(opened: Opened, live: Live, settled: Settled) -> None:
    files = birds(26) | {"empty.jpg": b"", "text.jpg": b"no picture", "cut.jpg": bird(1)[:600], "<b>.jpg": bird(2)}
    page = opened()
    drop(page, files)
    settled(page, 30)
    rows = live.predict_all(files.items()).rows()
    labels = labels_of(page)
    assert len(labels) == 30
    for (name, _), row, label in zip(files.items(), rows, labels, strict=True):
        assert label.startswith(f"{name}: ")
        assert (
            label.startswith(f"{name}: Cannot be read")
            if row["status"] == "error"
            else label.endswith(answer_words(row))
        )
    statuses = [row["status"] for row in rows]
    assert {"ok", "unsure", "error"} == set(statuses)
    for kind in ("ok", "unsure", "error"):
        assert page.locator(f"#kinds [data-kind={kind}] .number").inner_text() == str(statuses.count(kind))
    page.locator("#kinds [data-kind=error]").click()
    page.wait_for_timeout(200)
    assert [label.split(":")[0] for label in labels_of(page)] == ["empty.jpg", "text.jpg", "cut.jpg"]
    words = page.locator("#cards").inner_text()
    assert "The file is empty." in words and "This is not a picture" in words and "cut off" in words
    assert page.evaluate("window.hacked") is None


def test_the_table_that_is_downloaded(opened: Opened, live: Live, settled: Settled) -> None:
    files = birds(5) | {'a "quoted", name.jpg': bird(7), "empty.jpg": b""}
    page = opened()
    drop(page, files)
    settled(page, 7)
    table = downloaded(page)
    rows = live.predict_all(files.items()).rows()
    assert [*table[0]] == [*Layout(top=5).columns, "review", "reviewed_label"]
    for cells, name, row in zip(table, files, rows, strict=True):
        assert (cells["path"], cells["status"], cells["reason"]) == (name, row["status"], row["reason"])
        for rank, answer in enumerate(row["answers"], 1):
            assert cells[f"label_{rank}"] == answer["label"]
            assert float(cells[f"score_{rank}"]) == pytest.approx(answer["score"], abs=2e-6)
        assert cells["review"] == cells["reviewed_label"] == ""


def test_reviewing_by_keys(opened: Opened, settled: Settled) -> None:
    page = opened()
    drop(page, birds(6) | {"empty.jpg": b""})
    settled(page, 7)
    before = {cells["path"]: cells for cells in downloaded(page)}
    order = sorted(
        (name for name in before if before[name]["score_1"]), key=lambda name: float(before[name]["score_1"])
    )
    page.keyboard.press("r")
    shown = page.locator("#deciding .facts dd").first
    shown.get_by_text(order[0]).wait_for()
    page.keyboard.press("a")
    shown.get_by_text(order[1]).wait_for()
    page.keyboard.press("2")
    shown.get_by_text(order[2]).wait_for()
    page.keyboard.press("c")
    page.keyboard.type("snowy")
    page.keyboard.press("Enter")
    shown.get_by_text(order[3]).wait_for()
    page.keyboard.press("s")
    shown.get_by_text(order[4]).wait_for()
    page.keyboard.press("z")
    shown.get_by_text(order[3]).wait_for()
    page.keyboard.press("c")
    page.keyboard.type("A new one, <b>")
    page.keyboard.press("Enter")
    shown.get_by_text(order[4]).wait_for()
    assert "4 of 6 answers reviewed" in page.locator("#deciding").inner_text()
    page.keyboard.press("s")
    shown.get_by_text(order[5]).wait_for()
    page.keyboard.press("a")
    page.get_by_role("heading", name="All reviewed").wait_for()
    assert "2 accepted, 3 corrected, 1 skipped" in page.locator("#deciding").inner_text()
    table = {cells["path"]: (cells["review"], cells["reviewed_label"]) for cells in downloaded(page)}
    assert table == {
        order[0]: ("accepted", before[order[0]]["label_1"]),
        order[1]: ("corrected", before[order[1]]["label_2"]),
        order[2]: ("corrected", "Snowy Owl"),
        order[3]: ("corrected", "A new one, <b>"),
        order[4]: ("skipped", ""),
        order[5]: ("accepted", before[order[5]]["label_1"]),
        "empty.jpg": ("", ""),
    }


def test_a_checklist_is_asked_with_and_remembered(opened: Opened, live: Live, settled: Settled) -> None:
    page = opened()
    drop(page, birds(4))
    settled(page, 4)
    page.keyboard.press("f")
    page.keyboard.type("emu")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Which species may it be?")
    text = dialog.get_by_label("Or paste a list")
    assert text.input_value().split() == ["Emu"]
    text.fill("Emu\n  great   TIT  # seen today\nbird of o'hara\nDodo\n")
    assert dialog.get_by_role("status").inner_text() == "3 species of this model on the list. Unknown to it: Dodo."
    dialog.get_by_role("button", name="Name only these").click()
    settled(page, 4)
    listed = ["Emu", "Great Tit", "Bird_of O'Hara"]
    rows = live.predict_all(birds(4).items(), ("checklist", "\n".join(listed))).rows()
    assert [label.partition(": ")[2] for label in labels_of(page)] == [answer_words(row) for row in rows]
    table = downloaded(page)
    assert [*table[0]] == [*Layout(top=3, open_scores=True).columns, "review", "reviewed_label"]
    assert {cells[f"label_{rank}"] for cells in table for rank in (1, 2, 3)} == set(listed)
    assert float(table[0]["open_score_1"]) == pytest.approx(rows[0]["answers"][0]["open_score"], abs=2e-6)
    page.reload()
    drop(page, birds(4))
    settled(page, 4)
    assert [label.partition(": ")[2] for label in labels_of(page)] == [answer_words(row) for row in rows]
    page.get_by_role("button", name="Checklist: 3 species").click()
    dialog.get_by_role("button", name="Name all species").click()
    settled(page, 4)
    rows = live.predict_all(birds(4).items()).rows()
    assert [label.partition(": ")[2] for label in labels_of(page)] == [answer_words(row) for row in rows]


def test_a_checklist_of_which_the_model_knows_nothing_is_no_licence(opened: Opened, settled: Settled) -> None:
    asked: list[str] = []

    def prepare(page: Any) -> None:
        def describe(route: Any) -> None:
            route.fulfill(json=route.fetch().json() | {"species": [{"label": "Kea", "names": {}}], "languages": []})

        page.route("**/v1/models/forest", describe)
        page.on("request", lambda request: asked.append(request.url) if "model=forest" in request.url else None)

    page = opened(prepare=prepare)
    drop(page, birds(2))
    settled(page, 2)
    page.keyboard.press("f")
    dialog = page.get_by_role("dialog", name="Which species may it be?")
    dialog.get_by_label("Or paste a list").fill("Emu")
    dialog.get_by_role("button", name="Name only these").click()
    settled(page, 2)
    page.get_by_label("Model").select_option("forest")
    notice = page.locator("#notice").get_by_text("The model knows no species on your checklist, so it is not asked.")
    notice.wait_for()
    page.get_by_role("button", name="Checklist: no known species").wait_for()
    page.reload()
    drop(page, birds(3))
    page.get_by_role("heading", name="3 pictures").wait_for()
    page.wait_for_timeout(300)
    assert notice.is_visible() and asked == []
    page.get_by_role("button", name="Open the checklist").click()
    dialog.get_by_role("button", name="Name all species").click()
    settled(page, 3)
    assert len(asked) == 3 and page.locator("#notice").inner_text() == ""


def test_an_answer_of_the_model_before_is_not_that_of_the_next(opened: Opened, settled: Settled) -> None:
    """While the next model is slow, pictures have answers with labels and numbers of the one before."""
    held: list[Any] = []

    def prepare(page: Any) -> None:
        def predict(route: Any) -> None:
            if "model=forest" in route.request.url:
                held.append(route)
                return
            answer = route.fetch().json()
            answer["rows"][0]["similar"] = [{"picture": 3, "name": "a.jpg", "label": "Wren", "similarity": 0.8}]
            route.fulfill(json=answer)

        page.route("**/v1/predict*", predict)
        page.route("**/v1/models/*/pictures/3", lambda route: route.fulfill(body=bird(1), content_type="image/jpeg"))

    page = opened(prepare=prepare)
    drop(page, birds(2))
    settled(page, 2)
    page.keyboard.press("r")
    page.locator("#deciding .decide").wait_for()
    page.evaluate(
        "() => { window.late = []; window.soon = setTimeout; window.setTimeout = (work) => late.push(work); }"
    )
    with page.expect_request("**/v1/predict?model=forest*"):
        page.get_by_label("Model").select_option("forest")
    page.locator("h2").first.click()
    page.keyboard.press("a")  # before anything is drawn anew
    page.evaluate("window.setTimeout = soon; late.forEach((work) => work())")
    page.get_by_text("There is nothing to review yet.").wait_for()
    page.keyboard.press("g")
    with page.expect_request("**/pictures/3") as asked:
        page.locator(".card").first.click()
    assert "/models/garden/" in asked.value.url
    page.locator("#picture").get_by_text("This is the answer to what was asked before.").wait_for()
    with page.expect_request("**/v1/explain*") as asked:
        page.keyboard.press("x")
    assert "model=garden" in asked.value.url
    page.keyboard.press("Escape")
    page.unroute("**/v1/predict*")
    for route in held:
        route.continue_()
    settled(page, 2)
    assert [cells["review"] for cells in downloaded(page)] == ["", ""]
    page.locator(".card").first.click()
    with page.expect_request("**/v1/explain*") as asked:
        page.keyboard.press("x")
        page.keyboard.press("x")
    assert "model=forest" in asked.value.url


def test_names_in_the_language_of_the_reader(opened: Opened, settled: Settled) -> None:
    page = opened(locale="de-AT")
    chooser = page.get_by_label("Names")
    chooser.wait_for()
    assert chooser.input_value() == "de"
    drop(page, birds(8))
    settled(page, 8)
    table = downloaded(page)
    for label, cells in zip(labels_of(page), table, strict=True):
        assert GERMAN.get(cells["label_1"], cells["label_1"]) in label
    page.keyboard.press("f")
    page.keyboard.type("schnee e")
    assert page.locator("dialog[open]").get_by_role("option").all_inner_texts() == ["Schnee-Eule\nSnowy Owl"]
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    chooser.focus()
    chooser.select_option("he")
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.value") == "he"  # though the choosers were drawn anew
    page.reload()
    assert page.get_by_label("Names").input_value() == "he"
    page.get_by_label("Names").select_option("")
    page.wait_for_timeout(100)
    page.reload()
    assert page.get_by_label("Names").input_value() == ""


def test_sorting_and_walking_in_the_table_by_keys(opened: Opened, settled: Settled) -> None:
    page = opened()
    drop(page, birds(12))
    settled(page, 12)
    page.keyboard.press("t")
    head = page.get_by_role("columnheader", name="Probability")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#rows tbody tr:not(.gap) td:nth-child(3)")
    scores = [int(text.strip("<>\u202f% ")) for text in cells.all_inner_texts()]
    assert len(scores) == 12 and scores == sorted(scores)
    page.keyboard.press("Enter")
    assert [int(text.strip("<>\u202f% ")) for text in cells.all_inner_texts()] == scores[::-1]
    page.locator(".opener[tabindex='0']").focus()
    names = page.locator(".opener").all_inner_texts()
    for key, place in (("ArrowDown", 1), ("ArrowDown", 2), ("End", 11), ("ArrowUp", 10)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.innerText") == names[place]
    page.keyboard.press("Enter")
    assert page.locator("#picture .facts dd").first.inner_text() == names[10]
    page.keyboard.press("ArrowRight")
    assert page.locator("#picture .facts dd").first.inner_text() == names[11]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.innerText") == names[10]


def test_finding_by_file_or_species(opened: Opened, settled: Settled) -> None:
    page = opened()
    drop(page, birds(12))
    settled(page, 12)
    best = labels_of(page)[0].partition(": ")[2].rpartition(", ")[0].removeprefix("Unsure, perhaps ")
    page.get_by_label("Find by file or species").fill(best.lower())
    page.wait_for_timeout(200)
    found = labels_of(page)
    assert found and all(best in label for label in found)
    page.get_by_label("Find by file or species").fill("bird 011")
    page.wait_for_timeout(200)
    assert [label.split(":")[0] for label in labels_of(page)] == ["bird 011.jpg"]


@pytest.mark.slow
def test_two_thousand_pictures(opened: Opened, settled: Settled) -> None:
    """Answers are made up, so that only the page is measured; memory is that of the page after its own cleaning up."""
    answers = [{"label": name, "score": 0.9 / 2**rank, "open_score": None} for rank, name in enumerate(SPECIES[:5])]
    row = {"name": "", "status": "ok", "reason": "", "code": "", "novelty": None, "taken": "", "similar": []}
    row |= {"answers": answers, "width": 64, "height": 64}
    answer = {"model": {"name": "garden", "sha256": ""}, "notice": "", "rows": [row]}
    page = opened(prepare=lambda page: page.route("**/v1/predict*", lambda route: route.fulfill(json=answer)))
    page.locator("#about").wait_for()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize")) / 2**20

    content = bird(1)
    for number in range(4):
        drop(page, {f"{number} {place:03}.jpg": content for place in range(500)})
        settled(page, 500 * (number + 1))
        if number == 0:
            first = heap()
    for place in range(20):
        page.evaluate(f"window.scrollTo(0, document.body.scrollHeight * {place} / 20)")
        page.wait_for_timeout(100)
    assert heap() < first + 40  # MiB; 1500 rows, cards and files, which are no pixels
    assert page.locator(".card img").count() < 100
    page.keyboard.press("t")
    page.wait_for_timeout(300)
    assert page.locator("#rows tbody tr").count() < 60
    table = downloaded(page)
    assert len(table) == 2000
