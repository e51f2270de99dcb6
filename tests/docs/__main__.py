"""Writes the generated parts of docs/ (settings, commands) from the code, or checks that they are as they would be.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from frontdesk.cli import app
from frontdesk.cli.settings import variables
from frontdesk.config import BudgetSettings, JwtSettings, KeySettings, LettaServer, ProviderSettings, Settings
from tests.compat import results
from tests.docs import types

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


# --- settings ----------------------------------------------------------------------------------------------------


def settings() -> str:
    rows = ["| variable | in `frontdesk.toml` | default | meaning |", "|---|---|---|---|"]
    texts = texts_of(Settings)
    for name, info in Settings.model_fields.items():
        names = " or ".join(f"`{variable}`" for variable in variables(name))
        rows.append(f"| {names} | `{name}` | {default(name, info)} | {meaning(name, info, texts[name])} |")
    return "\n".join(rows)


def table(model: type[BaseModel]) -> str:
    rows = ["| name | default | meaning |", "|---|---|---|"]
    texts = texts_of(model)
    for name, info in model.model_fields.items():
        rows.append(f"| `{name}` | {default(name, info)} | {meaning(name, info, texts[name])} |")
    return "\n".join(rows)


def texts_of(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field, read from the source: every start of a gateway would wait for Pydantic to do it."""
    (described,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(described, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in pairwise(described.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
            case _:
                pass
    return found


def default(name: str, info: FieldInfo) -> str:
    """How a default is shown, with its unit."""
    if info.is_required():
        return "required"
    match info.default:
        case None | "" | () | {}:
            return "–"
        case SecretStr():
            return "–"
        case bool(value):
            return f"`{str(value).lower()}`"
        case int(value) if name.endswith("_bytes"):
            return f"`{value}` ({value // 2**20} MiB)"
        case int(value) | float(value) if name.endswith("seconds"):
            return f"`{value:g}` s"
        case tuple(values):  # pyright: ignore[reportUnknownVariableType]
            return f"`{','.join(map(str, values))}`"  # pyright: ignore[reportUnknownArgumentType]
        case str() | int() | float() as value:
            return f"`{value}`"
        case _:
            return "see right"


def meaning(name: str, info: FieldInfo, text: str) -> str:
    text = " ".join(text.split())
    if get_origin(info.annotation) is Literal:
        text += " One of " + ", ".join(f"`{choice}`" for choice in get_args(info.annotation)) + "."
    return text + bounds(name, info)


def bounds(name: str, info: FieldInfo) -> str:
    unit = " s" if name.endswith("seconds") else ""
    said: list[str] = []
    for bound in info.metadata:
        match bound:
            case Ge(ge=least):
                said.append(f"at least {least}{unit}")
            case Gt(gt=below):
                said.append(f"more than {below}{unit}")
            case Le(le=most):
                said.append(f"at most {most}{unit}")
            case _:
                pass
    return f" ({', '.join(said)})" if said else ""


# --- commands ----------------------------------------------------------------------------------------------------


def commands() -> str:
    return "\n\n".join(command(name, each) for name, each in named_commands().items())


def named_commands() -> dict[str, Any]:
    """Every command, those of a group under its name."""
    group: Any = typer.main.get_command(app)
    named: dict[str, Any] = {}
    for name, each in group.commands.items():
        within: dict[str, Any] = getattr(each, "commands", {"": each})
        alone = {"": each} if getattr(each, "invoke_without_command", False) else {}
        named |= {f"{name} {inner}".strip(): one for inner, one in (alone | within).items()}
    return named


def command(name: str, each: Any) -> str:
    parameters: list[Any] = [parameter for parameter in each.params if not parameter.hidden]
    arguments = [f"[{each.name.upper()}]" for each in parameters if each.param_type_name == "argument"]
    usage = " ".join(["frontdesk", name, *arguments])
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|", *map(parameter_row, parameters)]
    return f"### `{usage}`\n\n{each.help.strip()}\n\n" + "\n".join(rows)


def parameter_row(parameter: Any) -> str:
    names = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
    shown = ", ".join(f"`{name}`" for name in [*names, *parameter.secondary_opts])
    variable = f"`{parameter.envvar}`" if parameter.envvar else "–"
    value = parameter.default
    if getattr(parameter, "is_flag", False):
        given = "–" if value is False else f"`{parameter.opts[0]}`"
    else:
        given = "–" if value in (None, "") else f"`{value}`"
    return f"| {shown} | {variable} | {given} | {parameter.help} |"


# --- pages -------------------------------------------------------------------------------------------------------

PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "keys": lambda: table(KeySettings),
    "jwt": lambda: table(JwtSettings),
    "budgets": lambda: table(BudgetSettings),
    "letta": lambda: table(LettaServer),
    "providers": lambda: table(ProviderSettings),
    "commands": commands,
    "compat": results.page,
    "types": types.page,
}


def pages() -> Iterator[Path]:
    """Every page that people read, the README first."""
    yield ROOT / "README.md"
    yield ROOT / "CONTRIBUTING.md"
    yield ROOT / "CHANGELOG.md"
    yield ROOT / "examples" / "README.md"
    yield from sorted(DOCS.rglob("*.md"))


def filled(text: str) -> str:
    """A page with its generated parts as they are now."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", text)


def main() -> int:
    stale: list[str] = []
    for path in pages():
        text = path.read_text()
        if (new := filled(text)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--write" in sys.argv:
                path.write_text(new)
    if stale and "--write" not in sys.argv:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
