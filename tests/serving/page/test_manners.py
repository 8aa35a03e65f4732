"""Manners: with a server that refuses, and towards whoever looks at the page, with whatever."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.live import Live
from tests.serving.page.visit import Opened, Settled, birds, drop, labels_of


def test_a_busy_server_is_waited_for(opened: Opened, settled: Settled) -> None:
    refused: list[float] = []

    def prepare(page: Any) -> None:
        def predict(route: Any) -> None:
            if len(refused) == 2:
                route.continue_()
                return
            refused.append(1)
            problem = {
                "type": "urn:birder:problem:too-many",
                "title": "x",
                "status": 429,
                "detail": "x",
                "code": "too-many",
            }
            headers = {"Retry-After": "1", "Content-Type": "application/problem+json"}
            route.fulfill(status=429, headers=headers, body=json.dumps(problem))

        page.route("**/v1/predict*", predict)

    page = opened(prepare=prepare, expected="429")
    drop(page, birds(4))
    page.get_by_text("The server is busy; it goes on in a moment.").wait_for()
    settled(page, 4)
    assert all("Cannot" not in label and "No answer" not in label for label in labels_of(page))
    assert len(refused) == 2


def test_a_refusal_is_a_row_with_its_reason(opened: Opened, settled: Settled) -> None:
    refusals = {
        b"bird 001": {"title": "x", "status": 500, "detail": "a <b>bad</b> day", "code": "internal"},
        b"bird 002": {"title": "x", "status": 413, "detail": "send fewer pictures", "code": "too-large"},
    }

    def prepare(page: Any) -> None:
        def predict(route: Any) -> None:
            body = route.request.post_data_buffer or b""
            problem = next((problem for name, problem in refusals.items() if name in body), None)
            if problem:
                answer = {"status": problem["status"], "content_type": "application/problem+json"}
                route.fulfill(body=json.dumps(problem), **answer)
            else:
                route.continue_()

        page.route("**/v1/predict*", predict)

    page = opened(prepare=prepare, expected="status of")
    drop(page, birds(4))
    settled(page, 4)
    assert labels_of(page)[1:3] == ["bird 001.jpg: No answer", "bird 002.jpg: No answer"]
    assert "a <b>bad</b> day" in page.locator(".card").nth(1).inner_text()
    assert "The file is larger than this server takes." in page.locator(".card").nth(2).inner_text()
    page.unroute("**/v1/predict*")
    page.get_by_role("button", name="Try again").click()
    settled(page, 4)
    assert all("%" in label for label in labels_of(page))


def test_a_server_that_is_gone_is_said_and_tried_again(opened: Opened, settled: Settled) -> None:
    page = opened(expected="net::ERR")
    page.locator("#about").wait_for()
    page.route("**/*", lambda route: route.abort("connectionrefused"))
    drop(page, birds(5))
    page.locator("#progress.unreachable").wait_for()
    assert "The server does not answer." in page.locator("#progress").inner_text()
    assert "5 pictures waiting; nothing is lost" in page.locator("#progress").inner_text()
    page.unroute("**/*")
    page.get_by_role("button", name="Try again").click()
    settled(page, 5)
    assert all("%" in label for label in labels_of(page))


def test_stopping_and_going_on(opened: Opened, settled: Settled) -> None:
    held: list[Any] = []
    page = opened(prepare=lambda page: page.route("**/v1/predict*", lambda route: held.append(route)))
    drop(page, birds(9))
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("9 pictures not looked at yet.").wait_for()
    assert len(held) <= 4  # so many are under way at once
    page.unroute("**/v1/predict*")
    page.get_by_role("button", name="Go on").click()
    settled(page, 9)


def test_what_is_added_does_not_wait_for_a_slow_one(opened: Opened, playwright: Any, settled: Settled) -> None:
    held: list[Any] = []
    under_way: list[int] = []

    def prepare(page: Any) -> None:
        def predict(route: Any) -> None:
            under_way.append(1)
            if b"bird 000" in (route.request.post_data_buffer or b""):
                held.append(route)
            else:
                route.continue_()

        page.route("**/v1/predict*", predict)

    page = opened(prepare=prepare)
    drop(page, birds(1))
    page.get_by_text("0 of 1 looked at").wait_for()
    drop(page, {name: content for name, content in birds(8).items() if name != "bird 000.jpg"})
    playwright.expect(page.locator("#progress-words")).to_have_text("7 of 8 looked at")
    assert len(held) == 1
    held.pop().continue_()
    settled(page, 8)
    held.clear()

    page.unroute("**/v1/predict*")
    page.route("**/v1/predict*", lambda route: held.append(route))
    for number in range(3):
        drop(page, {f"{number} {name}": content for name, content in birds(3).items()})
    page.get_by_text("8 of 17 looked at").wait_for()
    page.wait_for_timeout(200)
    assert len(held) == 4  # so many are under way at once, and no more


def wanting_token(given: list[str]) -> Callable[[Any], None]:
    """A server that wants the token ``right``; what it is given is noted."""

    def guarded(route: Any) -> None:
        given.append(route.request.headers.get("authorization", ""))
        if given[-1] == "Bearer right":
            route.continue_()
        else:
            problem = {"title": "x", "status": 401, "detail": "x", "code": "unauthorized"}
            route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(problem))

    return lambda page: page.route("**/v1/**", guarded)


def test_a_token_is_taken_from_the_address_or_asked_for(opened: Opened, live: Live, settled: Settled) -> None:
    given: list[str] = []
    prepare = wanting_token(given)
    page = opened(prepare=prepare, expected="401")
    dialog = page.get_by_role("dialog", name="This server wants a token")
    dialog.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    dialog.get_by_text("The server does not know this token.").wait_for()
    dialog.get_by_label("Token").fill("right")
    page.keyboard.press("Enter")
    drop(page, birds(2))
    settled(page, 2)
    assert given[0] == "" and given[-1] == "Bearer right"
    page.reload()
    page.locator("#about").wait_for()  # it is remembered for this tab

    page = opened(prepare=prepare, at="#token=right")
    page.locator("#about").wait_for()
    assert page.url == live.address
    page.reload()
    page.locator("#about").wait_for()


def test_a_token_that_no_request_can_carry_is_not_right(opened: Opened) -> None:
    given: list[str] = []
    prepare = wanting_token(given)
    page = opened(prepare=prepare, at="#token=%E2%98%83")
    dialog = page.get_by_role("dialog", name="This server wants a token")
    for wrong in ("Łabędź", "naïve", "two\tparts"):
        dialog.get_by_text("The server does not know this token.").wait_for()
        dialog.get_by_label("Token").fill(wrong)
        page.keyboard.press("Enter")
    dialog.get_by_label("Token").fill("right")
    page.keyboard.press("Enter")
    page.locator("#about").wait_for()
    assert set(given) == {"Bearer right"}


def test_a_server_that_wants_time_before_it_says_anything(opened: Opened, playwright: Any) -> None:
    refused: list[Any] = []

    def prepare(page: Any) -> None:
        def models(route: Any) -> None:
            if refused:
                route.continue_()
                return
            refused.append(route)
            problem = {
                "title": "x",
                "status": 429,
                "detail": "too many wrong tokens: wait a minute",
                "code": "too-many",
            }
            route.fulfill(status=429, headers={"Retry-After": "2"}, json=problem)

        page.route("**/v1/models", models)

    page = opened(prepare=prepare, expected="429")
    said = "The server wants time. It says “too many wrong tokens: wait a minute”, and is asked again in 2 s."
    page.locator("#notice").get_by_text(said).wait_for()
    page.locator("#about").wait_for()
    playwright.expect(page.locator("#notice")).to_be_empty()


def test_the_card_of_a_model(opened: Opened, settled: Settled) -> None:
    page = opened()
    page.get_by_role("button", name="About the model").click()
    card = page.locator("dialog#card[open]")
    card.get_by_role("heading", name="A card of <b>ours</b>").wait_for()
    assert card.get_by_role("row").all_inner_texts() == ["figure\tvalue", "top-1\t78 %"]
    assert card.locator("ul ul li").inner_text() == "inner"
    assert "words (https://example.org/x)" in card.inner_text() and "license" not in card.inner_text()
    assert card.locator("pre").inner_text() == 'print("<script>window.hacked = 2</script>")'
    assert card.locator("a, b, script").count() == 0
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "about"
    page.get_by_label("Model").select_option("forest")
    page.wait_for_timeout(200)
    page.get_by_role("button", name="About the model").click()
    card.get_by_text("It has no card.").wait_for()
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/predict*") as asked:
        drop(page, birds(1))
    assert "model=forest" in asked.value.url
    page.reload()
    page.locator("#about").wait_for()
    assert page.get_by_label("Model", exact=True).input_value() == "forest"


def test_on_a_phone(opened: Opened, settled: Settled) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.get_by_role("button", name="Take a photograph").is_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    drop(page, birds(3) | {"a-very-long-name-without-any-space-in-it-" * 5 + ".jpg": b""})
    settled(page, 4)
    for key in ("g", "t", "r"):
        page.keyboard.press(key)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("tab", name="Pictures").tap()
    page.locator(".card").first.tap()
    box = page.locator("#picture").bounding_box()
    assert box["x"] >= 0 and box["width"] <= 390
    assert page.locator("#picture").evaluate("(dialog) => dialog.scrollWidth - dialog.clientWidth") <= 0


def test_keys_reach_everything(opened: Opened, settled: Settled) -> None:
    page = opened()
    page.locator("#about").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    drop(page, birds(3))
    settled(page, 3)
    assert page.evaluate("document.activeElement.id") == "summary"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className.split(' ')[0]"))
    assert reached[2:6] == ["list", "save", "clear", "tab-pictures"]
    assert reached.index("words") < reached.index("card") and reached.count("card") == 1
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#picture .facts dd").first.inner_text() == "bird 001.jpg"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.ariaLabel").startswith("bird 001.jpg")


def test_keys_are_shown_and_can_be_switched_off(opened: Opened, settled: Settled) -> None:
    page = opened()
    drop(page, birds(2))
    settled(page, 2)
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys, and what is what").get_by_label("Single letters are keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.wait_for_timeout(150)
    assert page.locator("#view-pictures").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(opened: Opened, settled: Settled, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page = opened(color_scheme=scheme, reduced_motion="reduce")

    def check() -> None:
        page.wait_for_timeout(150)
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()

    page.locator("#about").wait_for()
    check()
    drop(page, birds(6) | {"empty.jpg": b""})
    settled(page, 7)
    for keys in ("g", "t", "r", "cx", "f", "?"):
        for key in keys:
            page.keyboard.press(key)
        check()
        if keys in ("cx", "f", "?"):
            page.keyboard.press("Escape")
            page.keyboard.press("Escape")
            page.locator("h2").first.click()
    page.get_by_role("tab", name="Pictures").click()
    page.locator(".card").first.click()
    check()
    page.keyboard.press("Escape")
    page.locator("#about").click()
    page.locator("#card h3").wait_for()
    check()


def test_the_threshold_of_a_calibrated_model_says_what_is_unsure(opened: Opened, settled: Settled) -> None:
    asked: list[str] = []

    def prepare(page: Any) -> None:
        def describe(route: Any) -> None:
            model = route.fetch().json()
            route.fulfill(json={**model, "min_score": 0, "threshold": 0.999})

        page.route("**/v1/models/garden", describe)
        page.on("request", lambda request: asked.append(request.url) if "/v1/predict" in request.url else None)

    page = opened(prepare=prepare)
    drop(page, birds(2))
    settled(page, 2)
    assert "min_score=0.999" in asked[0]
    assert "Unsure" in page.locator(".card").first.inner_text()


def test_the_model_that_was_chosen_last_is_taken(opened: Opened) -> None:
    """Also if the server tells of another one later."""
    held: list[Any] = []
    page = opened()
    page.locator("#about").wait_for()
    page.route("**/v1/models/forest", lambda route: held.append(route))
    chooser = page.get_by_label("Model", exact=True)
    chooser.select_option("forest")
    with page.expect_response("**/v1/models/garden"):
        chooser.select_option("garden")
    with page.expect_response("**/v1/models/forest"):
        held[0].continue_()
    page.wait_for_timeout(300)
    page.locator("#about").click()
    assert page.locator("#card").get_by_text("garden").first.is_visible()
    assert chooser.input_value() == "garden"
