"""What /openapi.json promises is kept, whatever is asked: Schemathesis makes up the questions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.live import Live

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
)
PROBLEM = "application/problem+json"
# What is sent may be in order, and yet the model does not know the species, or there is no picture in the bytes.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "422"]
"""


@pytest.fixture(scope="module")
def document(server: Live) -> dict[str, Any]:
    return dict(server.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_all_addresses_are_documented(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == {
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}/card",
        "GET /v1/models/{model}/pictures/{number}",
        "POST /v1/predict",
        "POST /v1/embed",
        "POST /v1/explain",
    }


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    """In the document; that they are so in life is looked at wherever the tests meet one."""
    for name, operation in operations(document):
        assert operation["summary"], name
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            if status.startswith(("4", "5")):
                assert list(response["content"]) == [PROBLEM], (name, status)
        wanted = {"/v1/predict": {"400", "413", "422", "429", "503"}, "/v1/models/{model}": {"404", "422"}}
        assert wanted.get(name.split()[1], set()) <= set(operation["responses"]), name


def explored(server: Live, folder: Path, examples: int, *words: str) -> str:
    """What Schemathesis says; the test fails with it if it has found something."""
    (folder / "config.toml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "config.toml", "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", ",".join(CHECKS), "--no-color"]
    command += ["--max-examples", str(examples), "--continue-on-failure", "--request-timeout", "30", *words]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert server.process.poll() is None
    assert "Traceback" not in server.said, server.said
    return ended.stdout


def test_what_is_promised_is_kept(server: Live, tmp_path: Path) -> None:
    said = explored(server, tmp_path, 15, "--generation-deterministic")
    assert "Tested: 10" in said, said


@pytest.mark.slow
def test_what_is_promised_is_kept_a_thousand_times(server: Live, tmp_path: Path) -> None:
    explored(server, tmp_path, 300)


def test_a_promise_that_is_not_kept_is_found(server: Live, document: dict[str, Any], tmp_path: Path) -> None:
    """The search is none that cannot find: here the document says something else than the server does."""
    false = json.loads(json.dumps(document))
    false["paths"] = {"/healthz": false["paths"]["/healthz"]}
    false["paths"]["/healthz"]["get"]["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "array"}
    (tmp_path / "false.json").write_text(json.dumps(false))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "false.json", "--no-color"]
    command += ["--url", f"http://127.0.0.1:{server.port}", "--max-examples", "2", "--generation-database", "none"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "Response violates schema" in ended.stdout, ended.stdout
