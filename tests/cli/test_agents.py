import json

from .conftest import Run
from .servers import KEY, StubGateway, served


def test_agents_are_listed_with_what_is_known_of_them(gateway: StubGateway, run: Run) -> None:
    gateway.agents = [served("Milo"), served("Old", context_length=None, capabilities={"client_tools": False})]
    result = run("agents", "--url", gateway.url)
    milo, old = result.stdout.splitlines()[3:5]
    assert milo.split() == ["Milo", "Milo", "letta", "2026-11-18", "128,000", "yes"]
    assert old.split() == ["Old", "Old", "letta", "2026-11-18", "–", "no"]
    assert (result.exit_code, result.stderr) == (0, "")


def test_json_is_what_the_gateway_said(gateway: StubGateway, run: Run) -> None:
    assert json.loads(run("agents", "--url", gateway.url, "--json").stdout) == gateway.agents


def test_names_cannot_steer_the_terminal_or_the_markup(gateway: StubGateway, run: Run) -> None:
    gateway.agents = [served("[red]\x1b[2JMilo[/]")]
    assert "[red][2JMilo[/]" in run("agents", "--url", gateway.url).stdout


def test_the_url_may_be_the_base_url_of_clients(gateway: StubGateway, run: Run) -> None:
    assert "Milo" in run("agents", FRONTDESK_URL=f"{gateway.url.removeprefix('http://')}/v1/").stdout


def test_a_gateway_without_agents_says_so(gateway: StubGateway, run: Run) -> None:
    gateway.agents = []
    result = run("agents", "--url", gateway.url)
    assert "serves no agents" in result.stderr
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_key_is_asked_for_and_accepted(gateway: StubGateway, run: Run) -> None:
    gateway.key = KEY
    missing = run("agents", "--url", gateway.url)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "wants a key" in missing.stderr
    assert "FRONTDESK_API_KEY" in missing.stderr
    assert "does not know this key" in run("agents", "--url", gateway.url, "--key", "wrong").stderr
    assert run("agents", "--url", gateway.url, FRONTDESK_API_KEY=KEY).exit_code == 0


def test_nobody_there_is_one_line_and_the_next_step(run: Run) -> None:
    result = run("agents", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    trouble, mend = result.stderr.splitlines()
    assert trouble.startswith("error: Cannot reach a gateway at http://127.0.0.1:9")
    assert "frontdesk serve" in mend


def test_another_server_is_not_taken_for_a_gateway(letta: tuple[object, str], run: Run) -> None:
    result = run("agents", "--url", letta[1])
    assert "not as a gateway does (HTTP 404)" in result.stderr
    assert result.exit_code == 1
