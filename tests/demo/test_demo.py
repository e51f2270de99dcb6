"""What `frontdesk demo` shows, run as a person would."""

import json
import signal
from typing import Any

import httpx
from openai import OpenAI

from tests.demo.conftest import Place, Played, Serving
from tests.demo.processes import running, running_on, until


def test_the_play_is_shown_from_nothing_to_its_end(first_time: Played) -> None:
    assert first_time.code == 0, first_time.printed
    expected = [
        "a scripted model answers",
        "Loading Letta",
        "Milo is new",
        "What is the weather in Lisbon?",
        '→ get_weather(city="Lisbon")',
        "Tool    24 °C, sunny",
        "Here is the weather in Lisbon: 24 °C, sunny",
        "My name is Ada.",
        "Memory  The user's name is Ada.",
        "A new conversation",
        "What is my name?",
        "Your name is Ada.",
        "Everything has stopped.",
    ]
    rest = first_time.printed
    for text in expected:
        assert text in rest, first_time.printed
        rest = rest.partition(text)[2]
    assert "Traceback" not in first_time.printed


def test_nothing_is_left_running_after_the_play(first_time: Played) -> None:
    assert first_time.left == []


def test_milo_remembers_when_the_demo_is_started_again(next_time: Serving) -> None:
    printed = next_time.demo.printed
    assert "OPENAI_API_KEY and OPENAI_BASE_URL are set" in printed
    assert "Milo is back" in printed
    recalled = printed.partition("Milo remembers you from last time")[2].partition("A tool that runs")[0]
    assert "Your name is Ada." in recalled
    assert "Memory " not in printed


def test_what_it_says_about_going_on_is_true(next_time: Serving) -> None:
    assert f"{next_time.url}/v1\n" in next_time.demo.printed
    assert f"chat Milo --url {next_time.url}" in next_time.demo.printed
    body: Any = json.loads(next_time.demo.printed.partition("-d '")[2].partition("'")[0])
    reply = httpx.post(f"{next_time.url}/v1/chat/completions", json=body, timeout=60).json()
    assert reply["choices"][0]["message"]["content"] == "Your name is Ada."


def test_any_key_will_do(next_time: Serving) -> None:
    with OpenAI(base_url=f"{next_time.url}/v1", api_key="whatever") as client:
        assert [model.id for model in client.models.list()] == ["Milo"]


def test_a_second_demo_says_kindly_that_one_is_running(next_time: Serving, place: Place) -> None:
    with running("-m", "frontdesk", "demo", environment=place.environment, folder=place.folder) as second:
        assert second.wait(30) == 1
        assert f"A demo is running already, at {next_time.url}/v1" in second.printed
        assert f"kill {next_time.demo.process.pid}" in second.printed
        assert "Traceback" not in second.printed


def test_sigterm_ends_it_all(next_time: Serving, place: Place) -> None:
    """The last test on this demo."""
    next_time.demo.send(signal.SIGTERM)
    assert next_time.demo.wait(30) == 0
    assert running_on(place.data) == []
    assert next_time.demo.printed.endswith("Everything has stopped.\n\n")
    assert "Traceback" not in next_time.demo.printed


def test_a_demo_that_is_stopped_before_its_play_is_over_says_so(place: Place) -> None:
    environment = place.environment | {"FRONTDESK_DATA_DIR": str(place.folder / "interrupted")}
    with running("-m", "frontdesk", "demo", environment=environment, folder=place.folder) as demo:
        demo.wait_for("Starting Postgres")
        demo.send(signal.SIGINT)
        assert demo.wait(30) == 130
        assert "Traceback" not in demo.printed
        assert until(lambda: not running_on(place.folder / "interrupted"), 10)
