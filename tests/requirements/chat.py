"""Chat Completions and models."""

from tests.requirements import Requirement

CREATE = "https://platform.openai.com/docs/api-reference/chat/create"
STREAMING = "https://platform.openai.com/docs/api-reference/chat/streaming"
MODELS = "https://platform.openai.com/docs/api-reference/models"

REQUIREMENTS = {
    "models.list": Requirement("Every agent is listed as a model, with its real creation time", MODELS),
    "chat.plain": Requirement("A plain reply has the agent's text, a finish reason and usage", CREATE),
    "chat.text.exact": Requirement("Text survives byte for byte, streaming and not", CREATE),
}
