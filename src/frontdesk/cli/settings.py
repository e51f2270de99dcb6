"""Loading the settings for a command, and saying in plain words what is wrong with them."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, ValidationError
from pydantic_settings import SettingsError

from frontdesk.cli.page import Trouble
from frontdesk.config import Settings, config_file

MEND = "Settings come from options, the environment, `.env` and `frontdesk.toml`, in this order."
SECRET = ("api_keys", "keys", "letta", "letta_api_key", "secret")


def load(config: Path | None = None, **given: Any) -> Settings:
    """The settings, with the options which were `given` (not None) on top. Raises Trouble naming what is wrong."""
    if config:
        os.environ["FRONTDESK_CONFIG"] = str(config)
    file = config_file()
    if os.environ.get("FRONTDESK_CONFIG") and not file.is_file():
        raise Trouble(f"There is no settings file {file}.", "Mend `--config` or FRONTDESK_CONFIG.")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [problem(detail) for detail in error.errors(include_url=False)]
        raise Trouble("\n  ".join(["The settings cannot be used.", *lines]), MEND) from error
    except SettingsError as error:
        raise Trouble(f"The settings cannot be read: {error}.", "A list or a table in a variable is JSON.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Trouble(f"{file} is not valid TOML: {error}.") from error


def problem(detail: Mapping[str, Any]) -> str:
    """One line on one setting: its name, where it can be set, and what is wrong with it."""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    head, *rest = detail["loc"]
    field = field_of(str(head))
    value = detail.get("input")
    seen = f" (it is {value!r})" if isinstance(value, str | int | float) and field not in SECRET and not rest else ""
    return f"{place(field, rest)}: {message}{seen}"


def place(field: str, rest: list[str | int]) -> str:
    """`port (FRONTDESK_PORT)`, or for a table of the file `[[keys]] 2, sha256`."""
    if not rest or not isinstance(rest[0], int):
        return f"{'.'.join([field, *map(str, rest)])} ({variable(field)})"
    inner = ".".join(map(str, rest[1:]))
    table = f"[[{field}]] {rest[0] + 1}" if field in ("budgets", "keys", "jwt", "letta") else f"{field} {rest[0] + 1}"
    return f"{table}, {inner}" if inner else f"{table} ({variable(field)})"


def field_of(name: str) -> str:
    """The field which a name stands for: its own, or one of its variables."""
    return next((field for field in Settings.model_fields if name in (field, *variables(field))), name)


def variables(field: str) -> tuple[str, ...]:
    """The environment variables that set a field, the usual one first."""
    info = Settings.model_fields.get(field)
    if info and isinstance(info.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in info.validation_alias.choices if str(choice).isupper())
    return (f"FRONTDESK_{field.upper()}",)


def variable(field: str) -> str:
    return variables(field)[0]


def unknown_names() -> list[str]:
    """What is set under a name that means nothing: misspelt, most likely."""
    known = {name for field in Settings.model_fields for name in variables(field)}
    known |= {"FRONTDESK_CONFIG", "FRONTDESK_URL", "FRONTDESK_API_KEY"}
    known |= {"FRONTDESK_CACHE_DIR", "FRONTDESK_DEMO_MODEL", "FRONTDESK_UV"}
    found = [name for name in os.environ if name.upper().startswith("FRONTDESK_") and name.upper() not in known]
    file = config_file()
    if file.is_file():
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        found += [f"{name} (in {file})" for name in table if field_of(name) not in Settings.model_fields]
    return found
