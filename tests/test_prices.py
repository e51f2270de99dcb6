"""What calls cost, as far as anybody knows."""

from decimal import Decimal

import pytest

from frontdesk.prices import cost, known
from frontdesk.turn import Usage


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("openai/gpt-4o", Usage(input_tokens=1_000_000), "2.5"),
        ("openai/gpt-4o", Usage(output_tokens=1_000_000), "10"),
        ("openai/gpt-4o", Usage(input_tokens=1_000_000, cached_tokens=1_000_000), "1.25"),
        ("openai:gpt-4o", Usage(input_tokens=1_000_000), "2.5"),
        ("openrouter/openai/gpt-4o", Usage(input_tokens=1_000_000), "2.5"),
        ("google_ai/gemini-2.5-pro", Usage(output_tokens=1000), "0.01"),
        ("openai/gpt-4o", Usage(), "0"),
    ],
)
def test_a_known_model_costs_what_its_provider_asks(model: str, usage: Usage, dollars: str) -> None:
    assert cost(model, usage) == Decimal(dollars)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "/",
        "gpt-4o",
        "openai/",
        "openai/no-such-model",
        "openai/dall-e-3",
        "litellm/gpt-4o",
        "ollama/llama3",
        "openai-proxy/gpt-4o",
        "letta/letta-free",
        "openai/gpt-4o" + "x" * 1_000,
    ],
)
def test_of_any_other_nobody_knows_what_it_costs(model: str) -> None:
    assert not known(model)
    assert cost(model, Usage(1000, 1000)) is None


def test_odd_counts_are_priced_all_the_same() -> None:
    """Of a server that counts the cached tokens beside the others."""
    assert cost("openai/gpt-4o", Usage(input_tokens=10, cached_tokens=1000)) == Decimal("0.00125")
    assert cost("openai/gpt-4o", Usage(input_tokens=-5, output_tokens=-5, cached_tokens=-5)) == 0
