"""The composition root: the secret it keeps, and the document that describes all of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

import frontdesk
from frontdesk.app import EXPOSED_HEADERS, create_app, secret
from frontdesk.config import Settings
from frontdesk.door import Door
from frontdesk.gateway import about
from frontdesk.protocols.operations import ELSEWHERE, OPERATIONS
from frontdesk.turn import Turn


def settings(folder: Path, given: str = "") -> Settings:
    return Settings(data_dir=folder, secret=SecretStr(given), _env_file=None)  # pyright: ignore[reportCallIssue]


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    made = secret(settings(folder))
    assert len(made) == 64
    assert secret(settings(folder)) == made
    assert secret(settings(folder, "given")) == b"given"
    assert (folder / "secret").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_nothing_is_signed_with_an_empty_secret(tmp_path: Path, content: bytes) -> None:
    """As a crash between making the file and writing it leaves behind."""
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(OSError, match="is empty"):
        secret(settings(tmp_path))


def test_metadata_in_the_logs_is_short() -> None:
    turn = Turn("turn_1", "Milo", (), metadata={"n" * 1000: "v" * 1000})
    assert about(turn) == {"metadata": {"n" * 64: "v" * 512}}


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.fixture
def api(tmp_path: Path) -> FastAPI:
    door = create_app(settings(tmp_path))
    assert isinstance(door, Door)
    found: Any = door.app
    while not isinstance(found, FastAPI):  # behind the layers that save it work
        found = found._app
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_in_the_document(api: FastAPI) -> None:
    """But for HEAD, which is GET. Every path may be written with and without /v1: one of the two is described."""
    routes = {
        f"{method} {route.path_format or route.path}".replace(" /v1", " ")
        for route in iter_route_contexts(api.routes)
        for method in (route.methods or set[str]()) - {"HEAD"}
    }
    documented = operations(api.openapi())
    described = {name for name in routes if name.split()[1] not in {*ELSEWHERE, "/docs/oauth2-redirect"}}
    assert {name.replace(" /v1", " ") for name in documented} == described
    assert set(documented) == set(OPERATIONS)


def test_every_operation_names_its_errors_its_headers_and_the_shape_of_its_answer(api: FastAPI) -> None:
    for name, operation in operations(api.openapi()).items():
        answers = operation["responses"]
        errors = {
            status for status in answers if answers[status].get("$ref") == f"#/components/responses/Error{status}"
        }
        assert {"400", "500"} <= errors, name
        assert operation["summary"], name
        assert operation["tags"], name
        assert "422" not in answers, name
        for status, answer in answers.items():
            if status not in errors:
                assert "x-request-id" in answer["headers"], name
                assert all(media["schema"] for media in answer["content"].values()), name


def test_every_reference_in_the_document_leads_somewhere(api: FastAPI) -> None:
    document = api.openapi()
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
        found: Any = document
        for step in reference.split("/"):
            found = found[step]


def test_the_document_names_exactly_the_error_codes_there_are(api: FastAPI) -> None:
    responses: dict[str, Any] = api.openapi()["components"]["responses"]
    named = {code for each in responses.values() for code in re.findall(r"`(\w+)`", each["description"])}
    package = Path(frontdesk.__file__).parent
    sources = [
        path.read_text()
        for path in package.rglob("*.py")
        if path.name != "openapi.py" and not {"testing", "demo"} & set(path.relative_to(package).parts)
    ]
    given = {code for text in sources for code in re.findall(r'\bcode ?= ?"(\w+)"', text)}
    assert given - named == set()
    assert {code for code in named if not any(f'"{code}"' in text for text in sources)} == set()


def test_every_header_that_web_pages_may_read_is_described(api: FastAPI) -> None:
    assert set(EXPOSED_HEADERS) <= set(api.openapi()["components"]["headers"])
