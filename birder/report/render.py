"""One self-contained page: what is in ``page/`` around the data of a report.

Nothing is fetched, and nothing of the data becomes code: it stands in a block that no browser runs, and the script puts
it into the page as text. A policy in the page forbids all else.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

SCRIPTS = ("dom", "text", "table", "view", "charts", "pictures", "matrix", "map", "sections", "start")
"""Files of ``page/`` in the order in which they stand in the page; they are one script."""


def render(report: Mapping[str, Any]) -> str:
    """The page as HTML in UTF-8.

    Args:
        report: What ``build_report`` gives.
    """
    script = '(() => {\n"use strict";\n' + "\n".join(_file(f"{name}.js") for name in SCRIPTS) + "\n})();\n"
    style = _file("page.css")
    parts = {
        "title": html.escape(report["title"]),
        "policy": _policy(script, style),
        "style": style,
        "data": _data(report),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(report: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the block that it stands in: every < is an escape."""
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _file(name: str) -> str:
    return files("birder.report").joinpath("page", name).read_text(encoding="utf-8")
