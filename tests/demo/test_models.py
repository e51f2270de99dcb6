"""Whose model the demo uses, and which."""

import pytest

from frontdesk.demo.models import Provider, UnknownModel, choose, provider


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OPENAI_API_KEY": " "}, None),
        ({"OPENAI_API_KEY": "sk-1"}, Provider(("OPENAI_API_KEY",), "https://api.openai.com/v1", "sk-1")),
        ({"OPENAI_BASE_URL": "http://vllm/v1/"}, Provider(("OPENAI_BASE_URL",), "http://vllm/v1", "none")),
        (
            {"ANTHROPIC_API_KEY": "sk-2"},
            Provider(("ANTHROPIC_API_KEY",), environment={"ANTHROPIC_API_KEY": "sk-2"}),
        ),
        (
            {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://proxy/v1", "OLLAMA_BASE_URL": "http://o:11434/"},
            Provider(
                ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_BASE_URL"),
                "http://proxy/v1",
                "sk-1",
                {"OLLAMA_BASE_URL": "http://o:11434"},
            ),
        ),
        (
            {"ANTHROPIC_API_KEY": "sk-2", "HTTPS_PROXY": "http://out", "NO_PROXY": "intra"},
            Provider(
                ("ANTHROPIC_API_KEY",),
                environment={
                    "ANTHROPIC_API_KEY": "sk-2",
                    "HTTPS_PROXY": "http://out",
                    "NO_PROXY": "intra,127.0.0.1,localhost",
                    "no_proxy": "intra,127.0.0.1,localhost",
                },
            ),
        ),
    ],
)
def test_the_environment_says_whose_model(environment: dict[str, str], expected: Provider | None) -> None:
    assert provider(environment) == expected


OPENAI = ["letta/letta-free", "openai/gpt-5", "openai/gpt-4o-mini", "openai/gpt-4.1-mini"]


@pytest.mark.parametrize(
    ("handles", "wanted", "now", "chosen"),
    [
        (OPENAI, "", "", "openai/gpt-4.1-mini"),
        (OPENAI, "", "openai/gpt-5", "openai/gpt-5"),
        (OPENAI, "", "openai-proxy/scripted", "openai/gpt-4.1-mini"),
        (OPENAI, "openai/gpt-5", "openai/gpt-4o-mini", "openai/gpt-5"),
        (OPENAI, "gpt-5", "", "openai/gpt-5"),
        (
            ["anthropic/claude-opus-4-6", "anthropic/claude-haiku-4-5-20251001"],
            "",
            "",
            "anthropic/claude-haiku-4-5-20251001",
        ),
        (["openai-proxy/nomic-embed-text", "openai-proxy/qwen3"], "", "", "openai-proxy/qwen3"),
        (["openai-proxy/vendor/gpt-4.1-mini", "openai-proxy/a"], "", "", "openai-proxy/vendor/gpt-4.1-mini"),
    ],
)
def test_a_small_model_is_chosen_unless_another_is_wanted_or_in_use(
    handles: list[str], wanted: str, now: str, chosen: str
) -> None:
    assert choose(handles, wanted, now) == chosen


def test_a_model_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UnknownModel, match=r"There are: openai/gpt-5, openai/gpt-4o-mini, openai/gpt-4\.1-mini"):
        choose(OPENAI, "gpt-6")
    with pytest.raises(UnknownModel, match="offers no model"):
        choose(["letta/letta-free"])
