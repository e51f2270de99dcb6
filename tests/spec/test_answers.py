"""Every answer, before three judges: OpenAI's document, OpenAI's client, and our own document."""

import re
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from tests.requirements import requirement
from tests.served import Served
from tests.spec.exchanges import EVENT, EXCHANGES, ITEMS, REAL, Body, Door, House, Shape
from tests.spec.openai_document import VARIABLE, Document, closed, openai_document

Bodies = Callable[[str], list[Body]]

DIFFERENCES = {
    r"\['usage'\]: null is not of type \"object\"": "as in the document's own examples, until a response has ended",
    r"\['(first|last)_id'\]: null is not of type \"string\"": "as other lists have it in the document: of an empty one",
}
"""Where we differ from OpenAI's document, and why."""

EMPTY = "no items"

CACHE = {"prompt_cache_options", "prompt_cache_retention", "service_tier"}
WITHOUT_EFFECT = {
    "CreateChatCompletionRequest": (
        "ChatCompletionRequest",
        CACHE | {"audio", "prediction", "prompt_cache_key", "safety_identifier", "store"},
    ),
    "CreateResponse": ("ResponsesRequest", CACHE | {"context_management"}),
}
"""Parameters of OpenAI's document which we do not read, by the name of the request there and in ours."""


def known(ask: Bodies) -> Bodies:
    """What an exchange brings. It is held once, however many judges there are."""
    found: dict[str, list[Body]] = {}

    def of(name: str) -> list[Body]:
        if name not in found:
            found[name] = ask(name)
        assert found[name]
        return found[name]

    return of


def listed(brought: Body | list[Body]) -> list[Body]:
    return brought if isinstance(brought, list) else [brought]


@pytest.fixture(scope="module")
def bodies(house: House) -> Bodies:
    return known(lambda name: listed(EXCHANGES[name][1](house)))


@pytest.fixture(scope="module")
def real_bodies(gateway: Served, milo: str) -> Generator[Bodies]:
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield known(lambda name: listed(REAL[name][1](Door(client))))


@pytest.fixture(scope="module")
def openais() -> Document:
    document = openai_document()
    if document is None:
        pytest.skip(f"{VARIABLE} does not name OpenAI's OpenAPI document")
    return document


@pytest.fixture(scope="module")
def ours(house: House) -> Document:
    """Our document, by which an answer has no field that it does not describe."""
    return Document(closed(house.get("/openapi.json")))


def complaints(document: Document, schema: str, bodies: list[Body]) -> list[str]:
    return [line for body in bodies for line in document.complaints(schema, body)]


def new(lines: list[str]) -> list[str]:
    """But for the differences that are known."""
    return [line for line in lines if not any(re.search(f"{known}$", line) for known in DIFFERENCES)]


def read(shape: Shape, bodies: list[Body]) -> None:
    """As OpenAI's client would, did it look at types. Raises ValidationError."""
    judge: TypeAdapter[Any] = TypeAdapter(shape.client)
    for body in bodies:
        judge.validate_python(body[shape.within] if shape.within else body, strict=True)


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_answer_is_as_openais_document_has_it(name: str, bodies: Bodies, openais: Document) -> None:
    assert new(complaints(openais, EXCHANGES[name][0].openai, bodies(name))) == []


@requirement("responses.document")
@pytest.mark.parametrize("name", [name for name in EXCHANGES if name != EMPTY])
def test_an_answer_is_as_openais_client_has_it(name: str, bodies: Bodies) -> None:
    read(EXCHANGES[name][0], bodies(name))


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_answer_is_as_our_own_document_has_it(name: str, bodies: Bodies, ours: Document) -> None:
    assert complaints(ours, EXCHANGES[name][0].ours, bodies(name)) == []


@pytest.mark.parametrize("name", REAL)
def test_so_is_an_answer_of_a_real_agent(name: str, real_bodies: Bodies, ours: Document) -> None:
    shape = REAL[name][0]
    bodies = real_bodies(name)
    read(shape, bodies)
    assert complaints(ours, shape.ours, bodies) == []
    if document := openai_document():
        assert new(complaints(document, shape.openai, bodies)) == []


def test_every_known_difference_is_still_there(bodies: Bodies, openais: Document) -> None:
    told = [*complaints(openais, ITEMS.openai, bodies(EMPTY)), *complaints(openais, EVENT.openai, bodies("events"))]
    assert all(any(re.search(f"{known}$", line) for line in told) for known in DIFFERENCES)


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_every_parameter_of_openais_document_is_known(name: str, openais: Document, house: House) -> None:
    """A new one is to be carried out, refused or reported; or it is listed here."""
    theirs, (ours, unread) = openais.fields(name), WITHOUT_EFFECT[name]
    read = Document(house.get("/openapi.json")).fields(ours)
    assert read - theirs == set()
    assert theirs - read == unread


def test_a_judge_finds_what_is_wrong(openais: Document) -> None:
    """In a member of a union, by the kind which it says it is."""
    item: Body = {"type": "function_call", "id": "fc_1", "name": "look", "arguments": {}, "status": "completed"}
    found = openais.complaints("ConversationItem", item)
    assert any("call_id" in line for line in found)
    assert any("arguments" in line and "string" in line for line in found)
