import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frontdesk.backends.letta.twins import TAG, mark, tag_of
from tests.requirements import requirement

from .conftest import Run
from .servers import StubLetta, row

Letta = tuple[StubLetta, str]

MODEL_SETTINGS = {"provider_type": "openai", "temperature": 1.0, "max_output_tokens": 4096}
TIDE = {"name": "tide", "tool_type": "external_mcp", "metadata_": {"mcp": {"server_name": "harbour"}}}
TOOLS = [{"name": "memory_insert", "tool_type": "letta_sleeptime_core"}, TIDE, {"name": "pay", "tool_type": "custom"}]


def block(number: int, label: str, value: str = "", **more: Any) -> dict[str, Any]:
    return {"id": f"block-{number}", "label": label, "value": value, "limit": 5000} | more


@pytest.fixture
def house(letta: Letta) -> StubLetta:
    """A server with a modern agent, an older one and its twin, and a hidden one."""
    stub = letta[0]
    milo: dict[str, Any] = row(1, "Milo")
    old, hidden = row(2, "Old", "memgpt_v2_agent"), row(3, "Shy")
    persona, team = block(1, "persona", "I am Milo.", read_only=True), block(2, "team", "x" * 1234)
    milo |= {"model_settings": MODEL_SETTINGS, "tools": TOOLS, "tags": ["chat", "home"], "blocks": [team, persona]}
    milo["tool_rules"] = [{"type": "requires_approval", "tool_name": "pay"}]
    old |= {"blocks": [team], "tool_rules": [{"type": "exit_loop", "tool_name": "send_message"}]}
    twin: dict[str, Any] = row(4, "Old - Frontdesk twin") | {
        "hidden": True,
        "tags": [TAG, tag_of(old["id"])],
        "metadata": mark(old["id"], "made"),
        "blocks": [team],
    }
    stub.rows = [milo, old, hidden | {"hidden": True}, twin]
    stub.summaries = {milo["id"]: ["Frontdesk", "Frontdesk", "of another program"], twin["id"]: ["Frontdesk"]}
    return stub


@pytest.fixture
def show(house: StubLetta, letta: Letta, run: Run) -> Run:
    def show(*arguments: str, **more: str) -> Any:
        return run("agents", "show", *arguments, LETTA_BASE_URL=letta[1], **more)

    return show


def lines(text: str) -> dict[str, str]:
    """What is said of each thing, by its name, on one line."""
    found: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("   ") and last:
            found[last] += f" {line.strip()}"
        elif "  " in line.strip():
            last, _, rest = line.partition("  ")
            found[last] = " ".join(rest.split())
        else:
            last = ""
    return found


@requirement("agents.show")
def test_an_agent_is_shown_with_all_it_has(show: Run) -> None:
    result = show("Milo")
    assert (result.exit_code, result.stderr) == (0, "")
    told = lines(result.stdout)
    assert result.stdout.startswith("Milo on letta, letta_v1_agent, made 2026-11-20")
    assert told["id"] == row(1, "")["id"]
    assert told["model"] == "openai-proxy/scripted (openai)"
    assert told["context"] == "128,000 tokens"
    assert told["tags"] == "chat, home"
    assert told["made here"] == "2 conversations"
    assert told["persona"] == "10 of 5,000 characters, read-only"
    assert told["team"] == "1,234 of 5,000 characters, shared with 1 other agent"
    assert told["memory_insert"] == "memory"
    assert told["tide"] == "MCP server harbour"
    assert told["pay"] == "custom, needs approval"


def test_it_fits_into_80_columns(house: StubLetta, letta: Letta, env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "frontdesk", "agents", "show", "Milo"]
    narrow = env | {"LETTA_BASE_URL": letta[1], "COLUMNS": "80"}
    result = subprocess.run(command, env=narrow, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert 70 < max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80


@requirement("agents.show")
def test_what_works_is_told_with_its_reason(show: Run) -> None:
    milo, old = lines(show("Milo").stdout), lines(show("Old").stdout)
    assert milo["streaming"] == "yes Token by token."
    assert milo["own tools"].startswith("partly pay waits for a person's approval")
    assert milo["structured output"].startswith("yes")
    assert old["streaming"].startswith("partly Message by message")
    assert old["client tools"].startswith("yes Through its twin")
    assert old["twin"].startswith(row(4, "")["id"])
    assert old["structured output"].startswith("partly")


def test_settings_of_the_server_are_part_of_it(show: Run) -> None:
    told = lines(show("Milo", FRONTDESK_SYSTEM_PROMPT="message", FRONTDESK_MODES='{"Milo": "single"}').stdout)
    assert "`message`" in told["system prompts"]
    assert "`single`" in told["conversations"]


def test_rules_by_which_letta_makes_one_call_at_a_time_are_noted(show: Run, house: StubLetta) -> None:
    house.rows[1]["tools"] = [{"name": "send_message", "tool_type": "letta_core"}]
    assert "one call at a time" in show("Old").stdout
    assert "one call at a time" not in show("Milo").stdout


def test_json_has_the_same(show: Run) -> None:
    seen = json.loads(show("Milo", "--json").stdout)
    assert (seen["type"], seen["conversations"], seen["absent"]) == ("letta_v1_agent", 2, "")
    assert [each["shared_with"] for each in seen["blocks"]] == [[], ["Old"]]
    assert seen["tools"][2] == {"name": "tide", "kind": "MCP server harbour", "needs_approval": False}
    found = {each["name"]: each["works"] for each in seen["abilities"]}
    assert (found["client tools"], found["own tools"]) == ("yes", "partly")


def test_a_model_which_the_server_does_not_offer_is_marked(show: Run, house: StubLetta) -> None:
    house.models = ["openai/other"]
    assert "the server does not offer it" in show("Milo").stdout


def test_an_agent_is_found_by_every_name_it_has(show: Run) -> None:
    for name in ("Milo", row(1, "")["id"], "letta/Milo", f"letta/{row(1, '')['id']}", "friend"):
        assert show(name, FRONTDESK_ALIASES='{"friend": "Milo"}').stdout.startswith("Milo on letta")


def test_nobody_and_two_of_a_name_are_trouble_with_a_next_step(show: Run, house: StubLetta) -> None:
    result = show("Nobody")
    assert result.exit_code == 1
    assert "There is no agent 'Nobody'" in result.stderr
    assert "frontdesk agents --all" in result.stderr
    house.rows.append(row(5, "Milo"))
    result = show("Milo")
    assert result.exit_code == 1
    assert all(f"letta/{row(number, '')['id']}" in result.stderr for number in (1, 5))


def test_an_agent_that_is_not_served_is_shown_and_says_why(show: Run) -> None:
    assert "Nothing: it is not served (hidden)." in show("Shy").stdout
    assert "it is not served (twin of" in show(row(4, "")["id"]).stdout
    assert "Token by token" in show("Shy", FRONTDESK_INCLUDE_HIDDEN="true").stdout


def test_a_server_without_conversations_is_taken_for_what_it_is(show: Run, house: StubLetta) -> None:
    house.conversations = False
    milo, old = lines(show("Milo").stdout), lines(show("Old").stdout)
    assert milo["conversations"].startswith("no One thread for all callers: each hears what the others have said.")
    assert (milo["client tools"][:3], old["client tools"][:2]) == ("yes", "no")


def test_a_server_that_is_down_is_told_and_hides_nothing_of_the_others(show: Run, letta: Letta) -> None:
    result = show("Milo", LETTA_API_KEY="x", FRONTDESK_LETTA=servers(letta[1]))
    assert result.stdout.startswith("Milo on home")
    result = show("Nobody", FRONTDESK_LETTA=servers(letta[1]))
    assert result.exit_code == 1
    assert "away at http://127.0.0.1:9 cannot be reached" in result.stderr


def servers(url: str) -> str:
    return json.dumps([{"name": "away", "base_url": "http://127.0.0.1:9"}, {"name": "home", "base_url": url}])


def test_all_lists_hidden_agents_and_twins_too(house: StubLetta, letta: Letta, run: Run) -> None:
    result = run("agents", "--all", LETTA_BASE_URL=letta[1])
    assert (result.exit_code, result.stderr) == (0, "")
    served = {line[:22].strip(): " ".join(line.split()) for line in result.stdout.splitlines()[3:]}
    assert served["Milo"].endswith("letta_v1_agent 2026-11-20 yes")
    assert served["Shy"].endswith("no: hidden")
    assert "no: twin of Old" in served["Old - Frontdesk twin"]
    seen = json.loads(run("agents", "--all", "--json", LETTA_BASE_URL=letta[1]).stdout)
    assert [each["absent"] for each in seen] == ["", "", "hidden", "twin of Old"]


def test_of_agents_with_one_name_the_ids_are_listed(house: StubLetta, letta: Letta, run: Run) -> None:
    house.rows = [row(1, "Milo"), row(2, "Milo"), row(3, "[red]\x1b[2JOtis[/]")]
    shown = run("agents", "--all", LETTA_BASE_URL=letta[1]).stdout
    assert row(1, "")["id"] in shown
    assert row(2, "")["id"] in shown
    assert row(3, "")["id"] not in shown
    assert "[red][2JOtis[/]" in shown
