"""Settings: from the environment, `.env` and `frontdesk.toml`, in this order of strength, read once, passed as values.

The environment names are `FRONTDESK_<FIELD>`; Letta's own `LETTA_BASE_URL`, `LETTA_API_KEY` and `LETTA_PROJECT`, and
`REMOVE_SYSTEM_PROMPT`, keep the names under which they are known. The text under each field is its line in
docs/configuration.md, which `make docs` writes.
"""

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from frontdesk.amounts import Budget, budget
from frontdesk.turn import RANKS

LETTA_CLOUD = "https://api.letta.com"
LETTA_LOCAL = "http://localhost:8283"

Names = Annotated[tuple[str, ...], NoDecode]
ReplicaCount = Annotated[int, Field(ge=0, le=32)]
ConversationMode = Literal["auto", "pinned_only", "stateless", "single"]
SystemPrompt = Literal["override", "message", "block", "ignore"]
ProviderName = Literal[
    "openai",
    "anthropic",
    "google",
    "xai",
    "groq",
    "mistral",
    "bedrock",
    "openrouter",
    "ollama",
    "litellm",
    "openai-compatible",
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeySettings(_Table):
    """`[[keys]]`: an API key by its hash. `printf %s "$KEY" | sha256sum` makes one."""

    name: str
    """Who holds the key. Conversations belong to this name, so a renewed key under the same name finds them again."""
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    """The key's SHA-256, in 64 hexadecimal digits. The key itself is stored nowhere."""
    agents: tuple[str, ...] | None = None
    """Agents this key may see and use, by name, id or `backend/name`. All, if left out."""
    scopes: tuple[str, ...] = ()
    """What this key may do beside `user`: `owner`, `admin`, those of the setting `scopes`; `metrics` reads `/metrics`
    and `/health`, which a key without `agents` may anyway."""
    user_scopes: tuple[str, ...] = ()
    """Which of these each of its users may do too. A user who is named has `user` alone, if left out."""
    trust_user_headers: bool = False
    """Believe `X-OpenWebUI-User-Id`, and `user` in the body: each user then has conversations apart from all others of
    this key."""
    rate: str = ""
    """Requests in a period, as `60/minute` or `1000 per hour`. Unlimited, if left out."""
    mode: ConversationMode | None = None
    """How this key's requests find their conversation, as `conversation_mode`."""
    system_prompt: Literal["override", "message", "ignore"] | None = None
    """Where this key's system messages go, as `system_prompt`. (`block` can only be set for agents.)"""
    max_turns: int | None = Field(default=None, ge=1)
    """Turns of this key that may run at the same time. Unlimited, if left out."""


class JwtSettings(_Table):
    """`[[jwt]]`: an issuer of tokens, such as an identity provider, and what its tokens are good for here."""

    name: str
    """What the issuer is called here. Conversations belong to `name/subject`."""
    issuer: str = Field(min_length=1)
    """The `iss` of its tokens, to the letter."""
    audience: str = Field(min_length=1)
    """What must be in the `aud` of a token: that it was made for this server."""
    jwks_url: str = Field(min_length=1)
    """Where it publishes its keys (JWKS): `https:`, or `http:` on this machine."""
    allow_http: bool = False
    """Fetch them by `http:` from elsewhere too. Whoever can change them on their way can sign tokens."""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """Signatures to accept; only such as are made with a private key."""
    subject_claim: str = "sub"
    """The claim that says who it is: 1 to 255 printable characters, which the issuer never gives to somebody else."""
    scopes_claim: str = "scope"
    """The claim that holds its scopes, as a list or with spaces between them."""
    grants: tuple[str, ...] = ()
    """Scopes which its tokens may carry beside `user`; whatever else they carry counts for nothing."""
    agents: tuple[str, ...] | None = None
    """Agents its tokens are good for, by name, id or `backend/name`. All, if left out."""
    rate: str = ""
    """Requests of one subject in a period, as `60/minute`. Unlimited, if left out."""
    max_turns: int | None = Field(default=None, ge=1)
    """Turns of one subject that may run at the same time. Unlimited, if left out."""
    leeway_seconds: float = Field(default=30.0, ge=0, le=300)
    """How far its clock may be from ours."""
    refetch_seconds: float = Field(default=30.0, gt=0)
    """How often to look, at most, for a key that is not among those known."""


class BudgetSettings(_Table):
    """`[[budgets]]`: how much may be spent, by whom, in which time."""

    name: str
    """What the budget is called, in errors and metrics. What has been spent is remembered by this name."""
    limit: str
    """The most that is spent: `5 USD`, or `200000 tokens` (input and output together)."""
    per: Literal["key", "user", "agent", "all"] = "key"
    """Who has so much: each key (or issuer of tokens), each user, each agent, or all together."""
    period: Literal["day", "month", "total"] = "month"
    """In which time, by the calendar in UTC; `total` is ever."""
    keys: tuple[str, ...] = ()
    """The keys it concerns, as shell patterns of their names. All, if left out."""
    agents: tuple[str, ...] = ()
    """The agents it concerns, as shell patterns of names, ids or `backend/name`. All, if left out."""
    reserve: str = ""
    """What is set aside before a turn begins, at least: `0.05 USD`. If left out, what its input and an answer of as
    many tokens as the request allows, else 1,000, would cost."""
    price_input_per_mtok: Decimal | None = None
    """Dollars for a million input tokens of a model whose price is not known. Without it, and the next, such a model
    cannot be used where the budget is in dollars."""
    price_output_per_mtok: Decimal | None = None
    """The same for its output."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _ = self.budget
        return self

    @property
    def budget(self) -> Budget:
        return budget(**self.model_dump())


class ProviderSettings(_Table):
    """`[providers.openai]` and its like: how Python agents reach a provider of language models."""

    api_key: SecretStr = SecretStr("")
    """The key, for this provider alone. If empty, the provider's own variable, such as OPENAI_API_KEY. An agent's own
    `api_key` goes first."""
    base_url: str = ""
    """Its address, if it is not the usual one. `litellm` and `openai-compatible` have no usual one."""
    region: str = ""
    """The AWS region, for `bedrock`. If empty, AWS_DEFAULT_REGION."""


class LettaServer(_Table):
    """`[[letta]]`: one Letta server, and which of its agents to serve."""

    name: str = Field(default="letta", pattern=r"^[A-Za-z0-9_.-]+$")
    """What the server is called: in `backend/name` model strings, `owned_by`, `/health`, logs and metrics."""
    base_url: str = ""
    """Its address. If empty, `http://localhost:8283`, or where `api_key` is set Letta Cloud, `https://api.letta.com`."""
    api_key: SecretStr = SecretStr("")
    """Its key or password, sent as `Authorization: Bearer`."""
    project: str = ""
    """A Letta Cloud project, sent as `X-Project`."""
    tags: tuple[str, ...] = ()
    """Serve only agents that have at least one of these tags."""
    names: tuple[str, ...] = ()
    """Serve only agents whose name matches one of these shell patterns, such as `support-*`; case counts."""
    include_hidden: bool = False
    """Serve hidden agents of this server too."""
    include_sleeptime: bool = False
    """Serve sleeptime agents of this server too: those that tend another agent's memory."""
    bridge: Literal["twin", "reject"] = "twin"
    """How older agents of this server, which know no client tools, are given them: by a hidden modern twin, or not."""
    approvals: Literal["deny", "surface"] = "deny"
    """What becomes of an agent's own tool call that waits for a human: denied, and the agent goes on without, or an
    error `approval_required`, and the caller decides."""
    allowed_tools: tuple[str, ...] = ()
    """Such tools which are let run without asking anybody, as shell patterns of their names; case counts."""

    @property
    def url(self) -> str:
        return self.base_url or (LETTA_CLOUD if self.api_key.get_secret_value() else LETTA_LOCAL)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="FRONTDESK_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        toml_file=None,
        env_ignore_empty=True,
    )

    host: str = "127.0.0.1"
    """The address to listen on. Any other than loopback needs keys: without them the server refuses to start."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that serve on the port. Limits, such as `max_turns` and a key's `rate`, are each worker's own."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that may use every agent whose scope is `user`, as most are, comma-separated. Without these, `keys` and
    `jwt`, anybody who reaches the port may."""
    keys: tuple[KeySettings, ...] = ()
    """Keys by their hash, each with its own agents and rates: `[[keys]]` below, or JSON in the variable."""
    jwt: tuple[JwtSettings, ...] = ()
    """Issuers whose tokens are taken in place of a key: `[[jwt]]` below, or JSON in the variable."""
    scopes: Names = ()
    """Scopes of your own, which agents may ask for and keys may have, beside `public`, `user`, `owner` and `admin`."""
    allow_anonymous: bool = False
    """Let callers without a key use agents whose scope is `public`, each request for itself: nothing is kept of them.
    Without keys it means nothing."""
    anonymous_rate: str = "60/minute"
    """Requests of all such callers together in a period. Unlimited, if empty."""
    budgets: tuple[BudgetSettings, ...] = ()
    """What may be spent: `[[budgets]]` below, or JSON in the variable. Without any, nothing is counted."""
    letta: tuple[LettaServer, ...] = ()
    """Letta servers side by side: `[[letta]]` below, or JSON in the variable. They replace the `letta_…` settings."""
    letta_base_url: str = Field(default="", validation_alias=AliasChoices("LETTA_BASE_URL", "letta_base_url"))
    """The Letta server. If empty, `http://localhost:8283`, or Letta Cloud where `letta_api_key` is set."""
    letta_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("LETTA_API_KEY", "letta_api_key")
    )
    """The Letta server's key or password. Alone, it means Letta Cloud."""
    letta_project: str = Field(default="", validation_alias=AliasChoices("LETTA_PROJECT", "letta_project"))
    """A Letta Cloud project."""
    providers: dict[ProviderName, ProviderSettings] = {}
    """Where Python agents find their language models, and with which keys: `[providers.openai]` and its like below, or
    JSON in the variable."""
    agents: Names = ()
    """Agents written in Python, by import paths such as `my_agents:agents`, comma-separated. With these, or one of the
    next two, a Letta server is used only where one is named."""
    agents_dir: Path | None = None
    """A folder of agents in YAML and Markdown files. Changes to them are taken up as they are made."""
    agents_resolver: str = ""
    """The import path of a function that is given a name and gives an agent of this name, or None."""
    agents_resolver_seconds: float = Field(default=60.0, gt=0)
    """How long an agent which it has given is used before it is asked again."""
    letta_scopes: dict[str, str] = {}
    """The scopes that callers need for single Letta agents, by id or name: `Milo = "owner"`, and `"*"` for each that is
    not named. `user`, if left out. An agent written in Python says by itself which."""
    aliases: dict[str, str] = {}
    """More names for agents, such as `"gpt-4o" = "Milo"`. They can be used as the model and are not listed."""
    database_url: str = ""
    """Where conversations and turns are kept: `postgresql://…` for several machines. If empty, SQLite in `data_dir`."""
    conversation_mode: ConversationMode = "auto"
    """How a request finds its conversation: by its name or by what was said before (`auto`), by name alone
    (`pinned_only`), not at all (`stateless`), or always in the agent's own thread (`single`)."""
    modes: dict[str, ConversationMode] = {}
    """The same for single agents, by name or id: `Milo = "single"`. A key's `mode` and a model's suffix go first."""
    system_prompt: SystemPrompt = "override"
    """Where clients' system and developer messages go: behind the agent's own prompt, for this turn (`override`), into
    the conversation as a message when they are new (`message`), into a memory block (`block`, only for agents with one
    thread), or nowhere (`ignore`)."""
    system_prompts: dict[str, SystemPrompt] = {}
    """The same for single agents, by name or id: `Milo = "message"`. A key's `system_prompt` goes first."""
    memory_refresh: Literal["changed", "off"] = "changed"
    """Letta compiles a conversation's prompt once. `changed` has it compiled anew when the agent's memory blocks have
    changed since."""
    memory_refresh_seconds: float = Field(default=5.0, ge=0)
    """How often to look at one agent's memory blocks, at most; 0 looks before each turn."""
    model_choices: Names = ()
    """Models that a request may choose for its turn in place of the agent's own, as shell patterns of Letta's handles
    such as `openai/*`. None, if left out."""
    unknown_history: Literal["seed", "stateless", "reject"] = "seed"
    """A transcript nobody here wrote: `seed` takes it up, `stateless` does for this one request, `reject` is a 400."""
    conversation_headers: Names = ("x-frontdesk-conversation",)
    """Request headers that name a conversation, comma-separated; the first that is present counts. A request with one
    may send only what is new."""
    chat_headers: Names = (
        "x-openwebui-chat-id",
        "x-letta-chat-key",
        "x-chat-id",
        "x-hermes-session-id",
        "x-openclaw-session-key",
        "x-opencode-session",
        "x-grok-conv-id",
        "x-roo-task-id",
        "x-session-id",
        "session_id",
        "thread-id",
    )
    """Headers that name a chat whose client sends the whole transcript each time."""
    conversation_metadata: Names = ()
    """Keys of a request's `metadata` that name a chat too, such as `conversation_id`. None, if left out."""
    retention_days: float = Field(default=90.0, gt=0)
    """Conversations that nobody has used for so long are deleted, here and at the backend; only those made here."""
    unused_days: float = Field(default=7.0, gt=0)
    """The same for conversations that had only one turn. Stateless and temporary ones go after a day."""
    responses_days: float = Field(default=30.0, gt=0)
    """How long a response can be read again, and be gone on after by its id; its conversation is kept for longer."""
    background_tasks: Literal["auto", "utility_model", "agent_model", "canned", "ephemeral", "reject"] = "auto"
    """How chat clients' requests for titles, tags and the like are answered; never by the agent in its conversation.
    `auto` is `utility_model` where one is set, else `agent_model` where the backend can, else `canned`."""
    task_patterns: tuple[str, ...] = ()
    """Regular expressions for background tasks with prompts of your own: found at the beginning of the last message."""
    utility_base_url: str = ""
    """An OpenAI-compatible API for background tasks, such as `http://localhost:11434/v1`."""
    utility_model: str = ""
    """The model to ask there."""
    utility_api_key: SecretStr = SecretStr("")
    """Its key."""
    models_refresh_seconds: float = Field(default=30.0, gt=0)
    """How often the list of agents is read again; while a backend fails, every 2 seconds."""
    include_hidden: bool = False
    """Serve hidden agents too, of every Letta server."""
    include_sleeptime: bool = False
    """Serve sleeptime agents too, of every Letta server."""
    bridge: Literal["twin", "reject"] = "twin"
    """How older agents, which know no client tools, are given them: by a hidden modern twin, or not (a 400). Of the one
    Letta server of the environment; others have their own."""
    approvals: Literal["deny", "surface"] = "deny"
    """What becomes of an agent's own tool call that waits for a human: denied, and the agent goes on without, or an
    error `approval_required`, and the caller decides. Of the one Letta server of the environment."""
    allowed_tools: Names = ()
    """Such tools which are let run without asking anybody, as shell patterns of their names; case counts. Of the one
    Letta server of the environment."""
    replicas: dict[str, ReplicaCount] = {}
    """How many hidden twins, with the same tools and shared memory, hold an agent's conversations: by name or id,
    `Milo = 3`, and `"*"` for each older agent that is not named. A number alone means these. 0 is none."""
    reasoning_field: Literal["reasoning_content", "reasoning", "both", "think", "off"] = "reasoning_content"
    """The field that shows an agent's reasoning; `think` puts it into the text, between `<think>` tags."""
    tool_activity: Literal["reasoning", "off"] = "reasoning"
    """Where to show what the agent's own tools do in a chat: as lines among the reasoning, or nowhere."""
    tool_items: Literal["mcp_call", "function_pair", "off"] = "mcp_call"
    """The same in a response: as items for tools that ran on a server, as pairs of a `function_call` and its output,
    which Open WebUI shows, or nowhere."""
    remove_system_prompt: bool = Field(
        default=False,
        validation_alias=AliasChoices("REMOVE_SYSTEM_PROMPT", "FRONTDESK_REMOVE_SYSTEM_PROMPT", "remove_system_prompt"),
    )
    """Leave out clients' system and developer messages: the same as `system_prompt = "ignore"` everywhere."""
    strict_params: bool = False
    """Refuse parameters that cannot be honoured, where by default they are reported in a header."""
    commit_wait_seconds: float = Field(default=5.0, ge=0)
    """How long an error can still become a status code when the agent is slow to begin."""
    keepalive_seconds: float = Field(default=15.0, gt=0)
    """The longest silence on a stream before a keep-alive is sent."""
    keepalive: Literal["chunk", "comment", "off"] = "chunk"
    """What keeps a silent stream alive: an empty chunk, which every client takes for progress, or an SSE comment."""
    silence_seconds: float = Field(default=120.0, gt=0)
    """A turn whose agent gives no sign of work for so long is stopped, with the error `agent_timeout`."""
    on_disconnect: str = "grace:5s"
    """When the client goes away: `detach`, `cancel`, or `grace:<seconds>s` before cancelling."""
    queue_wait_seconds: float = Field(default=30.0, ge=0)
    """How long a turn waits for another one of its conversation, or for a free place."""
    shutdown_seconds: int = Field(default=10, ge=0)
    """How long running turns may go on when the server is told to stop; then they are cancelled."""
    max_turns: int = Field(default=1000, ge=1)
    """Turns that run at the same time at one backend, in this process."""
    max_waiting: int = Field(default=1000, ge=0)
    """Turns that may wait for a place there; further ones get 429 `server_overloaded` at once."""
    max_body_bytes: int = Field(default=20 * 2**20, ge=1024)
    """The largest request body."""
    max_image_bytes: int = Field(default=10 * 2**20, ge=1)
    """The largest image."""
    image_seconds: float = Field(default=10.0, gt=0)
    """How long fetching an image may take, redirects included."""
    image_allow_hosts: Names = ()
    """Hosts from which images are fetched although their address is private, as `host` or `host:port`."""
    webui_jwt_secret: SecretStr = SecretStr("")
    """Open WebUI's secret for `X-OpenWebUI-User-Jwt`, at least 32 bytes: a valid token names the user."""
    public_url: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """Where clients reach this server, such as `https://agents.example.com`, for the addresses in agents' A2A cards. If
    empty, as the request names it."""
    card_agent: str = ""
    """The agent whose A2A card is at `/.well-known/agent-card.json`. If empty, the only one that the caller may use."""
    cors_origins: Names = ()
    """Web pages that may call this server from a browser, as origins such as `https://chat.example.com`."""
    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("frontdesk", appauthor=False)))
    """Where the secret and the database are kept. If left out, Frontdesk's folder among the user's application data."""
    secret: SecretStr = SecretStr("")
    """Signs ids. Made and kept in the data folder if not given; give the same one to several servers."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important kind of line to log."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto` is `console` on a terminal, else `json`: one object on each line."""
    record_dir: Path | None = None
    """For debugging: write the raw backend stream of each turn to a file here. It holds what was said."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, config_file())
        return init_settings, env_settings, dotenv_settings, toml

    @field_validator("task_patterns")
    @classmethod
    def _regular(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return value

    @field_validator(
        "api_keys",
        "conversation_headers",
        "chat_headers",
        "conversation_metadata",
        "model_choices",
        "scopes",
        "allowed_tools",
        "agents",
        "image_allow_hosts",
        "cors_origins",
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("replicas", mode="before")
    @classmethod
    def _of_older_agents(cls, value: Any) -> Any:
        return {"*": value} if isinstance(value, int) else value

    @field_validator("on_disconnect")
    @classmethod
    def _policy(cls, value: str) -> str:
        if not re.fullmatch(r"detach|cancel|grace:\d+(\.\d+)?s", value):
            raise ValueError("use detach, cancel, or grace:<seconds>s such as grace:5s")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [server.name for server in self.letta]
        if len(set(names)) < len(names):
            raise ValueError("two [[letta]] servers have the same name; give each its own")
        if len({budget.name for budget in self.budgets}) < len(self.budgets):
            raise ValueError("two [[budgets]] have the same name; give each its own")
        return self

    @model_validator(mode="after")
    def _scoped(self) -> Self:
        for agent, scope in self.letta_scopes.items():
            if scope not in RANKS and scope not in self.scopes:
                raise ValueError(
                    f"letta_scopes: the agent {agent!r} asks for the scope {scope!r}, which is not known. Use"
                    f" {', '.join(RANKS)}, or name it in `scopes`"
                )
        return self

    @property
    def grace_seconds(self) -> float | None:
        """How long a turn goes on without its client; None means to its end."""
        if self.on_disconnect == "detach":
            return None
        return float(self.on_disconnect.removeprefix("grace:").removesuffix("s")) if ":" in self.on_disconnect else 0.0

    @property
    def servers(self) -> tuple[LettaServer, ...]:
        """The Letta servers: those of the file, else the one of the environment; none beside Python agents unless one
        is set."""
        if self.letta:
            return self.letta
        letta = self.letta_base_url or self.letta_api_key.get_secret_value()
        if self.has_python_agents and not letta:
            return ()
        return (
            LettaServer(
                base_url=self.letta_base_url,
                api_key=self.letta_api_key,
                project=self.letta_project,
                include_hidden=self.include_hidden,
                include_sleeptime=self.include_sleeptime,
                bridge=self.bridge,
                approvals=self.approvals,
                allowed_tools=self.allowed_tools,
            ),
        )

    @property
    def has_python_agents(self) -> bool:
        return bool(self.agents or self.agents_dir or self.agents_resolver)

    @property
    def store_url(self) -> str:
        """The address of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'frontdesk.db'}"

    @property
    def durable_url(self) -> str:
        """Where the steps of durable turns are kept: beside the conversations."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'durable.db'}"

    @property
    def open_to_all(self) -> bool:
        """Whether there are no keys, so that whoever reaches the port may use every agent."""
        return not (self.api_keys or self.keys or self.jwt)


def config_file() -> Path:
    """`frontdesk.toml` here, or the file that FRONTDESK_CONFIG names."""
    return Path(os.environ.get("FRONTDESK_CONFIG") or "frontdesk.toml")


class GivenSettings(Settings):
    """Only what is given here: nothing of the environment, and of no file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)
