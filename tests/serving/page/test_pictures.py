"""Pictures: how they come in, and what is shown of each."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.serving.live import Live
from tests.serving.page.visit import HOSTILE, Opened, Settled, birds, downloaded, drop, paste
from tests.serving.small import bird


def test_what_it_looked_at(opened: Opened, playwright: Any) -> None:
    page = opened()
    drop(page, birds(1))
    page.locator("#single .bars").wait_for()
    page.keyboard.press("g")
    button = page.get_by_role("button", name="What it looked at")
    with page.expect_response("**/v1/explain*") as asked:
        button.click()
    assert asked.value.json()["heat"]["values"]
    page.locator("#single canvas.heat").wait_for()
    with page.expect_response("**/v1/explain*") as asked:
        page.locator("#single .tools select").select_option(index=1)
    second = page.locator("#single .bars .name").nth(1).inner_text()
    assert asked.value.json()["label"] == second
    playwright.expect(page.locator("#single .note")).to_have_text(f"Bright is what spoke for {second}.")
    button.click()
    assert page.locator("#single canvas.heat").count() == 0


def test_what_the_browser_cannot_show_is_shown_by_the_server(opened: Opened) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(bird(3))).save(file, "TIFF")
    page = opened()
    drop(page, {"bird.tif": file.getvalue()})
    page.get_by_text("Your browser does not show TIF pictures.").wait_for()
    page.get_by_role("button", name="Have the server show it").click()
    image = page.locator("#single .photo img")
    image.wait_for()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_picture_is_shown_upright(opened: Opened, settled: Settled) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying
    Image.new("RGB", (80, 40), "red").save(file, "JPEG", exif=exif)
    page = opened()
    drop(page, {"lying.jpg": file.getvalue(), "other.jpg": bird(0)})
    settled(page, 2)
    shape = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert page.locator(".card img").first.evaluate(shape) == [40, 80]
    page.locator(".card").first.click()
    assert page.locator("#picture .photo img").evaluate(shape) == [40, 80]
    assert "40 \u00d7 80" in page.locator("#picture .facts").inner_text()


def test_similar_pictures(opened: Opened, live: Live) -> None:
    """The server of these tests has no index, so what one with an index would say is put into its answers."""

    def prepare(page: Any) -> None:
        def model(route: Any) -> None:
            route.fulfill(json=route.fetch().json() | {"index": 9})

        def predict(route: Any) -> None:
            answer = route.fetch().json()
            found = [{"picture": number, "name": HOSTILE, "label": HOSTILE, "similarity": 0.8} for number in (3, 5)]
            answer["rows"][0]["similar"] = found
            route.fulfill(json=answer)

        page.route("**/v1/models/garden", model)
        page.route("**/v1/predict*", predict)
        page.route(
            "**/v1/models/garden/pictures/*", lambda route: route.fulfill(body=bird(1), content_type="image/jpeg")
        )

    page = opened(prepare=prepare)
    with page.expect_request("**/v1/predict*") as asked:
        drop(page, birds(1))
    assert "similar=4" in asked.value.url
    page.locator(".similar img").nth(1).wait_for()
    assert page.locator(".similar li").first.inner_text() == f"{HOSTILE}\n80\u202f%"
    assert page.locator(".similar img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert page.evaluate("window.hacked") is None


def test_what_is_on_no_list_is_said(opened: Opened) -> None:
    def prepare(page: Any) -> None:
        def predict(route: Any) -> None:
            answer = route.fetch().json()
            answer["rows"][0] |= {"status": "not_in_list", "novelty": 0.999}
            route.fulfill(json=answer)

        page.route("**/v1/predict*", predict)

    page = opened(prepare=prepare)
    drop(page, birds(1))
    page.get_by_text("It looks like none of the 8 species that the model knows.").wait_for()
    assert "Not in my list\n\nAn unknown one" in page.locator("#single").inner_text()


def test_pasting_a_picture_and_choosing_a_folder(opened: Opened, tmp_path: Path, settled: Settled) -> None:
    (tmp_path / "walk" / "inner").mkdir(parents=True)
    (tmp_path / "walk" / "a.jpg").write_bytes(bird(0))
    (tmp_path / "walk" / "notes.txt").write_text("not looked at")
    (tmp_path / "walk" / "inner" / "b.JPG").write_bytes(bird(1))
    page = opened()
    paste(page, bird(5))
    page.locator("#single .bars").wait_for()
    page.locator("#folder").set_input_files(tmp_path / "walk")
    settled(page, 3)
    assert sorted(cells["path"] for cells in downloaded(page)) == ["image.png", "walk/a.jpg", "walk/inner/b.JPG"]
    page.get_by_text("1 other file in the folder was left out.").wait_for()


def test_a_folder_that_is_dropped(opened: Opened, tmp_path: Path, settled: Settled) -> None:
    """As a person drops it: the browser is told of paths, and makes entries of them."""
    (tmp_path / "walk" / "inner").mkdir(parents=True)
    for number in range(120):  # a browser gives a hundred at a time
        (tmp_path / "walk" / "inner" / f"{number:03}.jpg").write_bytes(b"")
    (tmp_path / "walk" / "notes.txt").write_text("not looked at")
    (tmp_path / "loose.txt").write_text("a loose file is taken, whatever it is")
    page = opened()
    page.locator("#about").wait_for()
    drags = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "walk"), str(tmp_path / "loose.txt")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        drags.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
        if kind == "dragOver":
            page.get_by_text("Let go").wait_for()
    settled(page, 121)
    paths = [cells["path"] for cells in downloaded(page)]
    assert paths == [*(f"walk/inner/{number:03}.jpg" for number in range(120)), "loose.txt"]
    page.get_by_text("1 other file in the folder was left out.").wait_for()
