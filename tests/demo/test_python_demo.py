"""What `frontdesk demo --python` shows, run as a person would."""

import json
import signal
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from frontdesk.demo.accounts import NoModelList, accounts, handles
from frontdesk.demo.models import Provider
from frontdesk.testing import ScriptedModel
from tests.demo.conftest import Place, Serving
from tests.demo.processes import running, running_on, until

COMMAND = ("-m", "frontdesk", "demo", "--python")


@pytest.fixture(scope="module")
def serving(place: Place) -> Generator[Serving]:
    """It has played with "a real model", and now it serves."""
    with ScriptedModel() as model:
        environment = place.environment | {"OPENAI_API_KEY": "sk-any", "OPENAI_BASE_URL": model.base_url}
        with running(*COMMAND, "--port=0", environment=environment, folder=place.folder) as demo:
            demo.wait_for("Ctrl-C")
            url = demo.printed.partition("The gateway listens on ")[2].partition(".\n")[0]
            yield Serving(demo, model, url)
        assert until(lambda: not running_on(place.data), 20)


def test_two_agents_hand_over_and_one_asks_its_mcp_server(place: Place) -> None:
    noisy = {name: value for name, value in place.environment.items() if name not in ("CI", "PYTEST_VERSION")}
    noisy["AMP_CURRENT_THREAD_ID"] = "1"  # where Pydantic AI would print a banner
    with running(*COMMAND, "--once", environment=noisy, folder=place.folder) as demo:
        assert demo.wait() == 0, demo.printed
    rest = demo.printed
    for text in (
        "a scripted model answers",
        "One agent hands over to another",
        "What is the weather in Lisbon?",
        "[transfer_to_weather] done",
        '[stations_get_weather] {"city":"Lisbon"}',
        "Here is the weather in Lisbon: 24 °C, sunny",
        "Each agent has a name",
        "weather ",
        "Here is the weather in Oslo: 3 °C, snow",
        "Everything has stopped.",
    ):
        assert text in rest, demo.printed
        rest = rest.partition(text)[2]
    assert "Traceback" not in demo.printed
    assert "pydantic" not in demo.printed
    assert running_on(place.data) == []


def test_with_a_key_that_models_answers(serving: Serving) -> None:
    assert "OPENAI_API_KEY and OPENAI_BASE_URL are set" in serving.demo.printed
    assert "think with openai/scripted." in serving.demo.printed
    first, second, *_ = serving.model.requests_with("What is the weather in Lisbon?")
    assert [first.tool_names, second.tool_names] == [["transfer_to_weather"], ["stations_get_weather"]]
    assert first.headers["authorization"] == "Bearer sk-any"
    assert "Today is " in first.texts[0]


def test_what_the_python_demo_says_about_going_on_is_true(serving: Serving) -> None:
    assert f"{serving.url}/v1\n" in serving.demo.printed
    assert f"chat Juno --url {serving.url}" in serving.demo.printed
    body: Any = json.loads(serving.demo.printed.partition("-d '")[2].partition("'")[0])
    reply = httpx.post(f"{serving.url}/v1/chat/completions", json=body, timeout=60).json()
    assert reply["choices"][0]["message"]["content"].startswith("Here is the weather in London: 14 °C")
    with OpenAI(base_url=f"{serving.url}/v1", api_key="whatever") as client:
        assert sorted(model.id for model in client.models.list()) == ["Juno", "weather"]


def test_a_second_python_demo_says_kindly_that_one_is_running(serving: Serving, place: Place) -> None:
    with running(*COMMAND, environment=place.environment, folder=place.folder) as second:
        assert second.wait(30) == 1
        assert f"A demo is running already, at {serving.url}/v1" in second.printed
        assert f"chat Juno --url {serving.url}" in second.printed


def test_sigterm_ends_the_python_demo_and_its_mcp_server(serving: Serving, place: Place) -> None:
    """The last test on this demo."""
    serving.demo.send(signal.SIGTERM)
    assert serving.demo.wait(30) == 0
    assert running_on(place.data) == []
    assert serving.demo.printed.endswith("Everything has stopped.\n\n")
    assert "Traceback" not in serving.demo.printed


@pytest.mark.parametrize(
    ("environment", "sentences"),
    [
        (
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-secret"},
            ("No models can be had from openai (ConnectError).", "Are OPENAI_API_KEY and OPENAI_BASE_URL right?"),
        ),
        ({"OPENAI_BASE_URL": "{model}", "FRONTDESK_DEMO_MODEL": "gpt-9"}, ("There is no model 'gpt-9'",)),
    ],
)
def test_a_model_that_cannot_be_had_is_told_in_a_sentence(
    place: Place, environment: dict[str, str], sentences: tuple[str, ...]
) -> None:
    with ScriptedModel() as model:
        given = {name: value.replace("{model}", model.base_url) for name, value in environment.items()}
        with running(*COMMAND, environment=place.environment | given | {"COLUMNS": "300"}, folder=place.folder) as demo:
            assert demo.wait(30) == 1
    assert [sentence for sentence in sentences if sentence not in demo.printed] == []
    assert "Traceback" not in demo.printed
    assert "sk-secret" not in demo.printed


def test_fresh_is_about_milo_alone(place: Place) -> None:
    with running(*COMMAND, "--fresh", environment=place.environment, folder=place.folder) as demo:
        assert demo.wait(30) == 1
        assert "`--fresh` is about Milo's memory" in demo.printed


def test_each_provider_is_asked_with_its_own_key() -> None:
    found = Provider(
        ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_BASE_URL"),
        "https://proxy.example/v1",
        "sk-openai",
        {"ANTHROPIC_API_KEY": "sk-ant", "OLLAMA_BASE_URL": "http://ollama:11434"},
    )
    known = accounts(found, {})
    assert {name: (each.models_url, dict(each.headers)) for name, each in known.items()} == {
        "openai": ("https://proxy.example/v1/models", {"authorization": "Bearer sk-openai"}),
        "anthropic": (
            "https://api.anthropic.com/v1/models?limit=100",
            {"x-api-key": "sk-ant", "anthropic-version": "2023-06-01"},
        ),
        "ollama": ("http://ollama:11434/v1/models", {"authorization": "Bearer none"}),
    }
    assert known["ollama"].settings == {"base_url": "http://ollama:11434/v1", "api_key": "none"}
    assert "sk-" not in repr(known)


def test_a_provider_that_does_not_answer_is_left_out_while_another_does() -> None:
    nobody = accounts(Provider((), None, environment={"OLLAMA_BASE_URL": "http://127.0.0.1:9"}), {})
    with ScriptedModel(models=("one", "two")) as model:
        both = accounts(Provider((), model.base_url), {}) | nobody
        assert handles(both) == ["openai/one", "openai/two"]
    with pytest.raises(NoModelList, match=r"No models can be had from ollama \(ConnectError\)"):
        handles(nobody)
