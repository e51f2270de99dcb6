"""What model calls cost, by the table of prices that comes with genai-prices. Nothing is fetched.

The table is loaded when it is first asked: it takes most of a second. Source: https://github.com/pydantic/genai-prices
"""

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from frontdesk.turn import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

PROVIDERS = {
    "anthropic": "anthropic",
    "aws": "aws",
    "azure": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_ai": "google",
    "google_vertex": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "x-ai": "x-ai",
    "xai": "x-ai",
}
"""The table's names of providers by those of `provider/model` strings, ours and Letta's. Where a model is reached
through anything else, a proxy say, or runs at home, nobody but the operator knows what it costs."""

MODEL_CHARACTERS = 200


def load() -> None:
    """Load the table now. To be called in a thread where an event loop runs."""
    known("openai/gpt-4o")


def known(model: str) -> bool:
    """Whether the table has a price for `provider/model`."""
    return cost(model, Usage()) is not None


def cost(model: str, usage: Usage) -> Decimal | None:
    """US dollars for one call of `provider/model`; None where nobody knows.

    For the sum of several calls it may be too much: a few models cost more for each token of a long input.
    """
    found = _found(model) if len(model) <= MODEL_CHARACTERS else None
    if found is None:
        return None
    from genai_prices import Usage as Tokens

    priced, provider = found
    cached, written = max(usage.cached_tokens, 0), max(usage.cache_write_tokens, 0)
    tokens = Tokens(
        input_tokens=max(usage.input_tokens, cached + written),  # both are parts of it
        cache_read_tokens=cached,
        cache_write_tokens=written,
        output_tokens=max(usage.output_tokens, 0),
    )
    return priced.calc_price(tokens, provider).total_price


@lru_cache(maxsize=256)
def _found(model: str) -> "tuple[ModelInfo, Provider] | None":
    """By the table's own search, but without its caches: they grow with every name that a caller makes up."""
    from genai_prices.data_snapshot import get_snapshot

    name, _, bare = model.partition("/") if "/" in model else model.partition(":")
    wanted = PROVIDERS.get(name.lower())
    providers = get_snapshot().providers
    provider = next((each for each in providers if each.id == wanted), None)
    found = provider.find_model(bare, all_providers=providers) if provider and bare else None
    return (found, provider) if found and provider and _by_token(found) else None


def _by_token(model: "ModelInfo") -> bool:
    """Whether it is paid by the token: pictures and speech are not."""
    from datetime import UTC, datetime

    prices = model.get_prices(datetime.now(UTC))
    return prices.input_mtok is not None or prices.output_mtok is not None
