"""The documentation says what is true: names, links, examples, and the files of deploy/."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from frontdesk.backends.letta.roster import RESERVED_TOOLS
from frontdesk.cli.settings import variables
from frontdesk.config import BudgetSettings, JwtSettings, KeySettings, LettaServer, ProviderSettings, Settings
from frontdesk.errors import GatewayError
from frontdesk.policies.auth import Keyring
from frontdesk.policies.limits import Limits
from frontdesk.protocols.chat_completions.decode import REPORTED
from frontdesk.protocols.chat_completions.schema import ChatCompletionRequest
from frontdesk.protocols.openai_errors import STATUS
from tests.docs.__main__ import DOCS, PART, PARTS, ROOT, filled, named_commands, pages, texts_of

DEPLOY = ROOT / "deploy"
PAGES = [path for path in pages() if path.exists()]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_file() and path not in PAGES)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def fenced(language: str) -> list[Any]:
    return [
        pytest.param(found[2], id=f"{name}-{number}")
        for path, name in zip(PAGES, NAMES, strict=True)
        for number, found in enumerate(FENCE.finditer(path.read_text()), 1)
        if found[1] == language
    ]


def settings_of(text: str) -> Settings:
    """Settings from the text of a file alone."""
    values: dict[str, Any] = tomllib.loads(text)
    assert values.keys() <= Settings.model_fields.keys(), "a name that is no setting"
    return Settings(_env_file=None, **values)  # pyright: ignore[reportCallIssue]


# --- generated parts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    assert filled(path.read_text()) == path.read_text(), "run `make docs`"


def test_every_generated_part_has_its_place() -> None:
    placed = [found[2] for path in PAGES for found in PART.finditer(path.read_text())]
    assert sorted(placed) == sorted(PARTS)


@pytest.mark.parametrize("model", [Settings, BudgetSettings, KeySettings, JwtSettings, LettaServer, ProviderSettings])
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    assert texts_of(model).keys() == model.model_fields.keys()


def test_every_command_is_described() -> None:
    for name, command in named_commands().items():
        assert command.help, name
        assert all(parameter.help for parameter in command.params), name


def test_settings_which_pages_name_exist() -> None:
    known = {variable for name in Settings.model_fields for variable in variables(name)}
    known |= {"FRONTDESK_CONFIG", "FRONTDESK_URL", "FRONTDESK_API_KEY", "FRONTDESK_CACHE_DIR", "FRONTDESK_UV"}
    known |= {"FRONTDESK_FUZZ_EXAMPLES"}  # of our own tests
    known |= {"FRONTDESK_DEMO_MODEL"}
    for path, name in zip(PAGES, NAMES, strict=True):
        assert set(re.findall(r"\bFRONTDESK_[A-Z_]+[A-Z]\b", path.read_text())) <= known, name


# --- what the code has is on its page ----------------------------------------------------------------------------


def test_every_error_code_is_documented() -> None:
    def tree(cls: type[GatewayError]) -> Iterator[type[GatewayError]]:
        yield cls
        for child in cls.__subclasses__():
            if child.__module__ == "frontdesk.errors":
                yield from tree(child)

    page = (DOCS / "errors.md").read_text()
    families = {"backend_error", "not_found"}  # only their children are raised
    assert {cls.code for cls in tree(GatewayError) if f"`{cls.code}`" not in page} == families
    modules = (ROOT / "src" / "frontdesk").rglob("*.py")
    source = "\n".join(path.read_text() for path in modules if "testing" not in path.parts)
    used = set(re.findall(r'\bcode="([a-z_]+)"', source)) | {"invalid_type", "unsupported_value", "invalid_image_url"}
    assert [code for code in sorted(used) if f"`{code}`" not in page] == []


def test_every_status_is_documented() -> None:
    rows = re.findall(r"^\| (\d{3}) \|.*?\| `([a-z_]+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert {(int(status), kind) for status, kind in rows} == set(STATUS.values())


def test_every_parameter_is_documented() -> None:
    def names(cell: str) -> list[str]:
        return re.findall(r"`([a-z_.]+)`", cell)

    page = (DOCS / "parameters.md").read_text()
    rows = {name: row for row in re.findall(r"^\| .*", page, re.MULTILINE) for name in names(row.split(" | ")[0])}
    assert [name for name in ChatCompletionRequest.model_fields if f"`{name}" not in page] == []
    assert [name for name in REPORTED if "reported" not in rows[name]] == []


def test_every_reserved_tool_is_documented() -> None:
    page = (DOCS / "tools.md").read_text()
    assert [name for name in sorted(RESERVED_TOOLS) if f"`{name}`" not in page] == []


# --- links and examples ------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    assert [str(path) for path in DOCS.rglob("*.md") if path not in linked | {index}] == []


@pytest.mark.parametrize("text", fenced("toml"))
def test_toml_examples_are_settings(text: str) -> None:
    settings = settings_of(text)
    Keyring(settings)
    Limits(settings)


@pytest.mark.parametrize("text", fenced("bash"))
def test_shell_examples_can_be_read(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for body in re.findall(r"-d '(\{.*?\})'", text, re.DOTALL):
        ChatCompletionRequest.model_validate(json.loads(body))


@pytest.mark.parametrize("text", fenced("json"))
def test_json_examples_are_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("text", fenced("python"))
def test_python_examples_can_be_read(text: str) -> None:
    compile(text, "example", "exec")


@pytest.mark.parametrize("path", [*PAGES, *sorted(DEPLOY.iterdir()), *EXAMPLES], ids=str)
def test_no_page_names_somebodys_machine(path: Path) -> None:
    assert re.findall(r"(?:/work|/home|/root|/tmp|/Users)/\S+", path.read_text()) == []


def test_the_examples_can_be_read() -> None:
    for path in EXAMPLES:
        match path.suffix:
            case ".py":
                compile(path.read_text(), path.name, "exec")
            case ".sh":
                subprocess.run(["sh", "-n", str(path)], check=True)
            case ".mjs" if node := shutil.which("node"):
                subprocess.run([node, "--check", str(path)], check=True)
            case _:
                pass


# --- deploy ------------------------------------------------------------------------------------------------------


def test_the_example_file_is_complete_and_has_the_defaults() -> None:
    text = (DEPLOY / "frontdesk.example.toml").read_text()
    settings = settings_of(text)
    for name in tomllib.loads(text):
        if name != "letta_base_url":  # shown with what an empty one means
            assert getattr(settings, name) == Settings.model_fields[name].get_default(), name
    named = set(re.findall(r"^(?:# )?([a-z0-9_]+) = ", text, re.MULTILINE)) | set(re.findall(r"\[([a-z_]+)[.\]]", text))
    fields = {
        name
        for model in (Settings, BudgetSettings, KeySettings, JwtSettings, LettaServer, ProviderSettings)
        for name in model.model_fields
    }
    assert named == fields


def test_the_example_file_is_right_also_where_it_is_commented_out() -> None:
    text = (DEPLOY / "frontdesk.example.toml").read_text()
    opened = re.sub(r'^# ((?:\[|"?[A-Za-z_0-9-]+"? = ).*)$', r"\1", text, flags=re.MULTILINE)
    settings = settings_of(opened)
    Keyring(settings)
    Limits(settings)
    assert len(settings.budgets) == 1
    assert (len(settings.keys), len(settings.jwt), len(settings.letta), settings.aliases) == (
        1,
        1,
        1,
        {"gpt-4o": "Milo"},
    )


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_names_settings_that_exist() -> None:
    services = compose()["services"]
    assert set(services) == {"letta-db", "letta", "frontdesk", "open-webui"}
    known = {variable for name in Settings.model_fields for variable in variables(name)}
    assert set(services["frontdesk"]["environment"]) <= known
    assert services["letta"]["image"].endswith(":0.16.7")
    assert services["frontdesk"]["environment"]["FRONTDESK_API_KEYS"], "it does not start without a key"
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", ())]
        assert all(name in compose()["volumes"] or (DEPLOY / name).exists() for name in volumes)


def test_compose_and_its_example_environment_agree() -> None:
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    offered = set(re.findall(r"^(?:# )?([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert wanted == offered


def test_the_image_and_the_unit_set_what_exists() -> None:
    known = {variable for name in Settings.model_fields for variable in variables(name)} | {"FRONTDESK_CONFIG"}
    for file in ("Dockerfile", "frontdesk.service"):
        text = (DEPLOY / file).read_text()
        assert set(re.findall(r"\b(FRONTDESK_[A-Z_]+)=", text)) <= known
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "\nUSER frontdesk\n" in dockerfile
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())


def pins(file: str) -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9._-]+==[^\s;]+)", (ROOT / file).read_text(), re.MULTILINE))


def test_the_two_locks_agree() -> None:
    assert pins("requirements-runtime.lock") < pins("requirements.lock"), "run `make lock`"
    assert not re.search(r"https?://|^--index", (ROOT / "requirements-runtime.lock").read_text(), re.MULTILINE)
