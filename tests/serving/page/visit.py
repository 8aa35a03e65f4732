"""What the tests of the page do with it: drop files, read what it shows, take the table that it gives."""

import base64
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from tests.serving.small import bird

HOSTILE = '<img src=x onerror="window.hacked = 1">'
SPECIES = ("Wren", "Great Tit", "Magpie", "Snowy Owl", "Emu", "Bird_of O'Hara", HOSTILE, "=1+1, or so")
GERMAN = {"Wren": "Zaunkönig", "Great Tit": "Kohlmeise", "Snowy Owl": "Schnee-Eule"}
HEBREW = {"Wren": "גדרון"}
SURE = 0.6
"""The least score with which the server of these tests names a bird."""

Opened: TypeAlias = Callable[..., Any]
Settled: TypeAlias = Callable[[Any, int], None]
Files: TypeAlias = dict[str, bytes]

_DROPPED = """files => {
    const transfer = new DataTransfer();
    for (const [name, content] of Object.entries(files)) {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name));
    }
    for (const type of ["dragenter", "dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }
}"""

_PASTED = """content => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
    document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}"""


def drop(page: Any, files: Files) -> None:
    """Drop files of these names onto the page, once it knows its model."""
    page.locator("#about").wait_for()
    page.evaluate(_DROPPED, {name: base64.b64encode(content).decode() for name, content in files.items()})


def paste(page: Any, content: bytes) -> None:
    """Paste a picture, which has the name that browsers give it."""
    page.locator("#about").wait_for()
    page.evaluate(_PASTED, base64.b64encode(content).decode())


def birds(count: int) -> Files:
    """So many drawn birds."""
    return {f"bird {number:03}.jpg": bird(number) for number in range(count)}


def labels_of(page: Any) -> list[str]:
    """What screen readers hear of each card."""
    return [str(label) for label in page.locator(".card").evaluate_all("all => all.map((one) => one.ariaLabel)")]


def downloaded(page: Any) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.locator("#save").click()
    text = Path(waiting.value.path()).read_bytes().decode("utf-8")
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def percent(score: float) -> str:
    whole = round(100 * score)
    return f"{'>99' if whole == 100 else '<1' if whole == 0 else whole}\u202f%"


def answer_words(row: dict[str, Any]) -> str:
    best = row["answers"][0]
    name = f"{best['label']}, {percent(best['score'])}"
    return name if row["status"] == "ok" else f"Unsure, perhaps {name}"
