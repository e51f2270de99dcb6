"""Settings: from the environment, `.env` and `frontdesk.toml`, in this order of strength, read once, passed as values.

The environment names are `FRONTDESK_<FIELD>`; Letta's own `LETTA_BASE_URL`, `LETTA_API_KEY` and `LETTA_PROJECT`, and
`REMOVE_SYSTEM_PROMPT`, keep the names under which they are known.
"""

import os
import re
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

LETTA_CLOUD = "https://api.letta.com"
LETTA_LOCAL = "http://localhost:8283"

Names = Annotated[tuple[str, ...], NoDecode]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeySettings(_Table):
    """`[[keys]]`: an API key by its hash. `printf %s "$KEY" | sha256sum` makes one."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    agents: tuple[str, ...] | None = None
    """Names or ids this key may use; all, if left out."""
    scopes: tuple[str, ...] = ()
    trust_user_headers: bool = False
    rate: str = ""
    """Requests, as `60/minute` or `1000 per hour`."""
    max_turns: int | None = Field(default=None, ge=1)
    """Turns at the same time."""


class LettaServer(_Table):
    """`[[letta]]`: one Letta server, and which of its agents to serve."""

    name: str = Field(default="letta", pattern=r"^[A-Za-z0-9_.-]+$")
    base_url: str = ""
    api_key: SecretStr = SecretStr("")
    project: str = ""
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    include_hidden: bool = False
    include_sleeptime: bool = False

    @property
    def url(self) -> str:
        return self.base_url or (LETTA_CLOUD if self.api_key.get_secret_value() else LETTA_LOCAL)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="FRONTDESK_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True, toml_file=None
    )

    host: str = "127.0.0.1"
    """Where to listen. Another address than loopback needs keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that may do everything, comma-separated."""
    keys: tuple[KeySettings, ...] = ()
    letta: tuple[LettaServer, ...] = ()
    letta_base_url: str = Field(default="", validation_alias=AliasChoices("LETTA_BASE_URL", "letta_base_url"))
    letta_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("LETTA_API_KEY", "letta_api_key")
    )
    letta_project: str = Field(default="", validation_alias=AliasChoices("LETTA_PROJECT", "letta_project"))
    aliases: dict[str, str] = {}
    """Other names for agents: `{"gpt-4o" = "Milo"}`."""
    conversation_headers: Names = ("x-frontdesk-conversation",)
    """Request headers which name the conversation; the first that is present counts."""
    models_refresh_seconds: float = Field(default=30.0, gt=0)
    include_hidden: bool = False
    include_sleeptime: bool = False
    reasoning_field: Literal["reasoning_content", "reasoning", "both", "think", "off"] = "reasoning_content"
    tool_activity: Literal["reasoning", "off"] = "reasoning"
    """Where to show what the agent's own tools do."""
    remove_system_prompt: bool = Field(
        default=False,
        validation_alias=AliasChoices("REMOVE_SYSTEM_PROMPT", "FRONTDESK_REMOVE_SYSTEM_PROMPT", "remove_system_prompt"),
    )
    strict_params: bool = False
    """Refuse parameters that cannot be honoured, where by default they are reported in a header."""
    commit_wait_seconds: float = Field(default=5.0, ge=0)
    """How long an error can still become a status code when the agent is slow to begin."""
    keepalive_seconds: float = Field(default=15.0, gt=0)
    keepalive: Literal["chunk", "comment", "off"] = "chunk"
    silence_seconds: float = Field(default=120.0, gt=0)
    """A turn whose agent gives no sign of work for so long is ended with an error."""
    on_disconnect: str = "grace:5s"
    """When the client goes away: `detach`, `cancel`, or `grace:<seconds>s` before cancelling."""
    queue_wait_seconds: float = Field(default=30.0, ge=0)
    """How long a turn waits for another one of its conversation, or for a free place."""
    max_turns: int = Field(default=1000, ge=1)
    max_waiting: int = Field(default=1000, ge=0)
    max_body_bytes: int = Field(default=20 * 2**20, ge=1024)
    max_image_bytes: int = Field(default=10 * 2**20, ge=1)
    image_seconds: float = Field(default=10.0, gt=0)
    image_allow_hosts: Names = ()
    """Hosts from which images are fetched although their address is private."""
    cors_origins: Names = ()
    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("frontdesk", appauthor=False)))
    secret: SecretStr = SecretStr("")
    """Signs ids. Made and kept in the data folder if not given; give the same one to several servers."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
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

    @field_validator("api_keys", "conversation_headers", "image_allow_hosts", "cors_origins", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

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
        return self

    @property
    def grace_seconds(self) -> float | None:
        """How long a turn goes on without its client; None means to its end."""
        if self.on_disconnect == "detach":
            return None
        return float(self.on_disconnect.removeprefix("grace:").removesuffix("s")) if ":" in self.on_disconnect else 0.0

    @property
    def servers(self) -> tuple[LettaServer, ...]:
        """The Letta servers: those of the file, else the one of the environment."""
        if self.letta:
            return self.letta
        return (
            LettaServer(
                base_url=self.letta_base_url,
                api_key=self.letta_api_key,
                project=self.letta_project,
                include_hidden=self.include_hidden,
                include_sleeptime=self.include_sleeptime,
            ),
        )

    @property
    def open_to_all(self) -> bool:
        """Whether there are no keys, so that whoever reaches the port may use every agent."""
        return not self.api_keys and not self.keys


def config_file() -> Path:
    """`frontdesk.toml` here, or the file that FRONTDESK_CONFIG names."""
    return Path(os.environ.get("FRONTDESK_CONFIG") or "frontdesk.toml")
