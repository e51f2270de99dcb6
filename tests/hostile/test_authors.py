"""Hooks and prompts that give what they cannot, or never end: the turn fails for what it is, or goes on; none hangs."""

from collections.abc import Iterator

import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.backends.python.serving import Asking, serving
from tests.hostile.authors import WRONG
from tests.hostile.test_own_tools import call, results_in
from tests.requirements import requirement
from tests.served import Served


@pytest.fixture(scope="module")
def gateway(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("authors"), model, agents=("tests.hostile.authors:agents",)) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def asking(request: pytest.FixtureRequest, gateway: Served, model: ScriptedModel, marker: str) -> Asking:
    return Asking(gateway, model, marker, streamed=request.param)


@requirement("python.hooks")
@pytest.mark.parametrize("agent", WRONG)
async def test_a_hook_that_gives_what_it_cannot_or_never_ends_has_failed(asking: Asking, agent: str) -> None:
    with pytest.raises(openai.APIError, match=r"hook '.+' failed") as info:
        await asking(agent, f"{call('note', text='x')}\n@then\n@say Done.")
    assert info.value.code == "agent_error"


async def test_an_output_that_cannot_be_told_is_the_tools_error(asking: Asking) -> None:
    done = await asking.message("output-endless", f"{call('note', text='x')}\n@then\n@say Done.")
    assert done.content == "Done."
    assert "cannot be told" in results_in(asking.calls[-1].messages)[0]


async def test_a_hook_that_may_fail_may_hang(asking: Asking) -> None:
    assert (await asking.message("hangs-ignored", "@say Done.")).content == "Done."


async def test_half_a_character_in_a_prompt_keeps_nobody_from_being_answered(asking: Asking) -> None:
    assert (await asking.message("half-prompt", "@say Done.")).content == "Done."
    assert "half ? a character" in str(asking.calls[-1].messages[0])
