import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frontdesk.cli.checks import data_folder

from .conftest import Run
from .servers import KEY, StubGateway, StubLetta, row, served

Letta = tuple[StubLetta, str]


@pytest.fixture
def free_port() -> Iterator[str]:
    """A port on which nobody listens, and which stays so: bound, but in a way that lets a server bind it too."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield str(held.getsockname()[1])


@pytest.fixture(autouse=True)
def port(env: dict[str, str], free_port: str) -> None:
    """Whatever runs on port 8000 of this machine is no business of these tests."""
    env["FRONTDESK_PORT"] = free_port


def marks(output: str) -> dict[str, str]:
    """Mark by subject; of several the worst."""
    found: dict[str, str] = {}
    for mark, subject in re.findall(r"^(ok|warn|fail) +(\S+)", output, re.M):
        found[subject] = max(found.get(subject, ""), mark, key=["", "ok", "warn", "fail"].index)
    return found


def test_all_is_well(letta: Letta, gateway: StubGateway, run: Run) -> None:
    result = run("doctor", "--url", gateway.url, LETTA_BASE_URL=letta[1])
    seen = marks(result.stdout)
    assert seen == dict.fromkeys(("python", "settings", "data", "gateway", "letta", "turn"), "ok")
    assert "version 0.16.7: 1 agent of 1 served" in result.stdout
    assert (result.exit_code, result.stderr) == (0, "")
    assert gateway.pins[0].startswith("doctor-")


def test_a_dead_letta_fails_and_says_what_to_do(run: Run) -> None:
    result = run("doctor", LETTA_BASE_URL="http://127.0.0.1:9")
    assert result.exit_code == 1
    assert marks(result.stdout)["letta"] == "fail"
    assert "LETTA_BASE_URL" in result.stdout
    assert "there is no agent to send it to" in result.stdout


def test_nothing_at_the_url_fails(letta: Letta, run: Run) -> None:
    result = run("doctor", "--url", "127.0.0.1:9", "--no-turn", LETTA_BASE_URL=letta[1])
    assert marks(result.stdout)["gateway"] == "fail"
    assert result.exit_code == 1


def test_a_free_port_and_a_strange_one(letta: Letta, gateway: StubGateway, run: Run) -> None:
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1])
    assert marks(result.stdout)["port"] == "ok"
    strange = letta[1].rpartition(":")[2]
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1], FRONTDESK_PORT=strange)
    assert marks(result.stdout)["gateway"] == "fail"
    assert "choose another with FRONTDESK_PORT" in result.stdout
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1], FRONTDESK_PORT=gateway.url.rpartition(":")[2])
    assert marks(result.stdout)["gateway"] == "ok"


def test_a_gateway_with_other_keys(letta: Letta, gateway: StubGateway, run: Run) -> None:
    gateway.key = KEY
    assert run("doctor", "--url", gateway.url, LETTA_BASE_URL=letta[1]).exit_code == 1
    assert run("doctor", "--url", gateway.url, "--key", KEY, LETTA_BASE_URL=letta[1]).exit_code == 0


def test_our_own_keys_are_not_given_to_a_stranger(letta: Letta, gateway: StubGateway, run: Run) -> None:
    gateway.key = KEY
    result = run("doctor", "--url", gateway.url, LETTA_BASE_URL=letta[1], FRONTDESK_API_KEYS=KEY)
    assert marks(result.stdout)["gateway"] == "fail"


def test_lettas_password(letta: Letta, run: Run) -> None:
    stub, url = letta
    stub.password = "sesame"
    result = run("doctor", "--no-turn", LETTA_BASE_URL=url, LETTA_API_KEY="wrong")
    assert marks(result.stdout)["letta"] == "fail"
    assert "LETTA_API_KEY" in result.stdout
    assert run("doctor", "--no-turn", LETTA_BASE_URL=url, LETTA_API_KEY="sesame").exit_code == 0


def test_another_server_is_not_taken_for_letta(letta: Letta, gateway: StubGateway, run: Run) -> None:
    for url in (gateway.url, letta[1]):
        letta[0].health = {"status": "fine"}
        result = run("doctor", "--no-turn", LETTA_BASE_URL=url)
        assert marks(result.stdout)["letta"] == "fail"
        assert "not as a Letta server does" in result.stdout


def test_an_older_server_is_a_warning(letta: Letta, run: Run) -> None:
    letta[0].conversations = False
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1])
    assert marks(result.stdout)["letta"] == "warn"
    assert result.exit_code == 0


def test_agents_that_cause_trouble_are_named(letta: Letta, run: Run) -> None:
    letta[0].rows = [row(1, "Milo"), row(2, "Milo"), row(3, "demo1"), row(4, "Old", "memgpt_v2_agent")]
    aliases = '{"gpt-4o": "Nobody", "fine": "demo1"}'
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1], FRONTDESK_ALIASES=aliases)
    assert "2 agents are called 'Milo'" in result.stdout
    assert row(2, "")["id"] in result.stdout
    assert "'demo1' contains o1" in result.stdout
    assert "'Old' (memgpt_v2_agent): conversations: One thread for all callers" in result.stdout
    assert "The alias 'gpt-4o' means 'Nobody'" in result.stdout
    assert "4 agents of 4 served" in result.stdout
    assert "'fine'" not in result.stdout
    assert result.exit_code == 0


def test_what_cannot_work_for_agents_is_told_once_for_all_of_them(letta: Letta, run: Run) -> None:
    rules = [{"type": "requires_approval", "tool_name": "pay"}, {"type": "exit_loop", "tool_name": "rest"}]
    letta[0].rows = [row(number, f"Agent {number}") | {"tool_rules": rules} for number in range(1, 6)]
    letta[0].rows[0] |= {"model": "openai/gone"}
    letta[0].rows[1] |= {"embedding_config": None, "embedding": None}
    letta[0].rows[2] |= {"embedding_config": {"handle": "openai/gone-too"}}
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1])
    told = [line for line in result.stdout.splitlines() if line.startswith("warn")]
    assert len(told) == 4
    assert "'Agent 1', 'Agent 2', 'Agent 3' and 2 more: own tools: pay waits for a person" in told[0]
    assert "'Agent 1': The server offers no model 'openai/gone'" in told[1]
    assert "'Agent 2': No embedding model" in told[2]
    assert "'Agent 3': The server offers no embedding model 'openai/gone-too'" in told[3]
    assert result.exit_code == 0


def test_settings_under_which_an_agent_refuses_everybody_are_told(letta: Letta, run: Run) -> None:
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1], FRONTDESK_SYSTEM_PROMPT="block")
    assert "'Milo': system prompts: The agent 'Milo' is set up with system_prompt = block" in result.stdout


def test_a_server_without_redis_and_an_old_one_are_warned_of(letta: Letta, run: Run) -> None:
    letta[0].redis = False
    letta[0].health["version"] = "0.16.4"
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1])
    assert "older than 0.16.7" in result.stdout
    assert "LETTA_REDIS_HOST" in result.stdout
    letta[0].redis, letta[0].health["version"] = True, "0.17.0"
    assert marks(run("doctor", "--no-turn", LETTA_BASE_URL=letta[1]).stdout)["letta"] == "ok"


def test_the_trial_goes_to_an_agent_in_whose_memory_it_does_not_stay(
    letta: Letta, gateway: StubGateway, run: Run
) -> None:
    letta[0].rows = [row(1, "Old", "memgpt_v2_agent"), row(2, "Milo")]
    gateway.agents = [served("Old"), served("Milo")]
    assert run("doctor", "--url", gateway.url, LETTA_BASE_URL=letta[1]).exit_code == 0
    assert [body["model"] for body in gateway.bodies] == ["Milo"]


def test_settings_that_may_not_be_meant(letta: Letta, run: Run, tmp_path: Path) -> None:
    (tmp_path / "frontdesk.toml").write_text('prot = 1\ncors_origins = ["*"]\n')
    result = run("doctor", "--no-turn", LETTA_BASE_URL=letta[1], FRONTDESK_API_KEY="x", FRONTDESK_HSOT="y")
    for expected in (
        "prot (in frontdesk.toml)",
        "FRONTDESK_HSOT",
        "own keys are FRONTDESK_API_KEYS",
        "Every web page",
    ):
        assert expected in result.stdout
    assert marks(result.stdout)["settings"] == "warn"
    assert "could be guessed" in run("doctor", "--no-turn", FRONTDESK_API_KEYS="short").stdout


def test_settings_that_cannot_be_used_end_it(run: Run) -> None:
    result = run("doctor", FRONTDESK_PORT="x")
    assert marks(result.stdout)["settings"] == "fail"
    assert result.exit_code == 1
    assert marks(run("doctor", "--no-turn", FRONTDESK_HOST="0.0.0.0").stdout)["settings"] == "fail"


def test_a_failing_turn_fails(letta: Letta, gateway: StubGateway, run: Run) -> None:
    gateway.agents = [served("Old", capabilities={"client_tools": False})]
    result = run("doctor", "--url", gateway.url, LETTA_BASE_URL=letta[1])
    assert marks(result.stdout)["turn"] == "fail"
    assert "--agent" in result.stdout
    assert run("doctor", "--url", gateway.url, "--agent", "Old", LETTA_BASE_URL=letta[1]).exit_code == 0


def test_without_a_gateway_one_is_made_for_the_turn(letta: Letta, env: dict[str, str], tmp_path: Path) -> None:
    """The stub takes no messages, so that the turn fails there: it has gone all the way through a gateway."""
    command = [sys.executable, "-m", "frontdesk", "doctor"]
    env["LETTA_BASE_URL"] = letta[1]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert marks(result.stdout)["turn"] == "fail"
    assert result.returncode == 1
    assert result.stderr == ""


def test_a_gateway_that_cannot_start_is_told(letta: Letta, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("doctor", LETTA_BASE_URL=letta[1], FRONTDESK_DATA_DIR=str(tmp_path / "file"))
    assert (marks(result.stdout)["data"], marks(result.stdout)["turn"]) == ("fail", "fail")
    assert "The gateway cannot start" in result.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert data_folder(tmp_path / "data").mark == "fail"


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert data_folder(tmp_path / "file").mark == "fail"
    assert data_folder(tmp_path / "file" / "below").mark == "fail"
    assert data_folder(tmp_path / "new" / "folder").mark == "ok"
