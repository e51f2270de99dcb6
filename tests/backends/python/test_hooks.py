"""Hooks, prompts, the caller's own instructions, and what a turn shows of itself."""

import openai
import pytest

from tests.backends.python.cast import seen
from tests.backends.python.serving import Asking
from tests.backends.python.test_handoffs import instructions
from tests.backends.python.test_tools import results_in
from tests.requirements import requirement


def keyed(asking: Asking) -> dict[str, str]:
    return {"Idempotency-Key": f"{asking.marker}{asking.streamed}"}


@requirement("python.hooks")
async def test_hooks_are_called_in_their_order_and_may_change_what_they_are_given(asking: Asking) -> None:
    script = '@call shout {"text": "hey"}\n@then\n@say damn it'
    done = await asking("watched", script, extra_headers=keyed(asking))
    assert done.choices[0].message.content == "darn it"
    assert results_in(asking.calls[-1].messages) == ["HEY!"]
    assert seen[keyed(asking)["Idempotency-Key"]] == ["model 1", "before_tool_call", "model 2", "finish stop True"]


@requirement("python.hooks")
async def test_a_hook_may_refuse_the_turn_before_anything_is_sent(asking: Asking) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await asking("watched", "I am to be refused", extra_headers=keyed(asking))
    assert caught.value.code == "not_today"
    assert asking.calls == []
    assert seen[keyed(asking)["Idempotency-Key"]] == ["error Forbidden"]


async def test_a_hook_that_breaks_ends_the_turn_and_says_nothing_of_its_secrets(asking: Asking) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await asking("faulty", "@say Hello.")
    assert (caught.value.status_code, caught.value.code) == (500, "agent_error")
    assert "sk-secret" not in str(caught.value.body)
    assert asking.calls == []


@requirement("python.prompts")
async def test_prompts_follow_the_instructions_by_priority_for_whom_they_are(asking: Asking) -> None:
    await asking("watched", [{"role": "system", "content": "Be brief."}, asking.said("@say Hello.")])
    assert instructions(asking.calls[0]).split("\n\n") == [
        "You are watched.",
        "First prompt, for anonymous.",
        "Second prompt.",
        "Be brief.",
    ]


async def test_nothing_is_stored_of_the_instructions_in_the_conversation(asking: Asking) -> None:
    said = asking.said("@say One.")
    first = await asking.message("watched", [{"role": "system", "content": "Be brief."}, said])
    told = [said, {"role": "assistant", "content": first.content}, asking.said("@say Two.")]
    await asking.message("watched", told)
    assert "Be brief." not in instructions(asking.calls[-1])
    texts = [each["content"] for each in asking.calls[-1].messages if each["role"] != "system"]
    assert texts == [said["content"], "One.", told[-1]["content"]]
