"""The clients: a folder each, with what it is pinned to and one script."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KIT = HERE / "kit"


@dataclass(frozen=True)
class Client:
    """`folder` holds `requirements.in`, `requirements.txt` and `client.py`, or `package.json` and `client.mjs`."""

    title: str
    folder: Path
    variant: str = ""
    """What the script is told when it stands for several clients."""

    @property
    def name(self) -> str:
        return "-".join(filter(None, [self.folder.name, self.variant]))

    @property
    def is_node(self) -> bool:
        return (self.folder / "package.json").exists()

    @property
    def pins(self) -> tuple[Path, ...]:
        """The files that say what is installed."""
        names = ("package.json", "package-lock.json") if self.is_node else ("requirements.txt",)
        return tuple(self.folder / name for name in names)

    @property
    def script(self) -> Path:
        return self.folder / ("client.mjs" if self.is_node else "client.py")

    @property
    def versions(self) -> dict[str, str]:
        """What the folder asks for by name, exactly."""
        if self.is_node:
            return json.loads((self.folder / "package.json").read_text())["dependencies"]
        text = (self.folder / "requirements.in").read_text()
        return dict(re.findall(r"^([\w-]+)(?:\[.*\])?==(\S+)$", text, re.MULTILINE))


CLIENTS = (
    Client("OpenAI, Python", HERE / "openai_python"),
    Client("OpenAI, Node", HERE / "openai_node"),
    Client("OpenAI Agents SDK", HERE / "openai_agents"),
    Client("LangChain", HERE / "langchain"),
    Client("LlamaIndex", HERE / "llama_index"),
    Client("Pydantic AI", HERE / "pydantic_ai"),
    Client("Vercel AI SDK, OpenAI provider", HERE / "ai_sdk", "openai"),
    Client("Vercel AI SDK, compatible provider", HERE / "ai_sdk", "compatible"),
    Client("LiteLLM", HERE / "litellm", "library"),
    Client("LiteLLM proxy", HERE / "litellm", "proxy"),
    Client("Codex", HERE / "codex"),
)
