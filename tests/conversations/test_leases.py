"""One turn at a time per conversation."""

import asyncio
import random

import pytest

from frontdesk.conversations.leases import Leases
from frontdesk.errors import ConversationBusy
from tests.requirements import requirement


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(leases: Leases, order: list[int], number: int, leave: asyncio.Event, key: str = "k") -> bool:
    async with leases.hold(key) as waited:
        order.append(number)
        await leave.wait()
        return waited


@requirement("operations.order")
async def test_first_come_is_first_served() -> None:
    leases, order = Leases(5), list[int]()
    leaves = [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(hold(leases, order, n, leaves[n])) for n in range(5)]
    await settle()
    for number in range(5):
        assert order == list(range(number + 1))
        assert leases.waiting == 4 - number
        leaves[number].set()
        await settle()
    assert await asyncio.gather(*tasks) == [False, True, True, True, True]
    assert leases.waiting == 0


async def test_other_conversations_do_not_wait() -> None:
    leases = Leases(0)
    async with leases.hold("one"), leases.hold("two"):
        assert leases.waiting == 0


@requirement("operations.busy")
@pytest.mark.parametrize("seconds", [0.0, 0.02])
async def test_the_wait_is_bounded(seconds: float) -> None:
    leases = Leases(seconds)
    async with leases.hold("k"):
        with pytest.raises(ConversationBusy) as info:
            async with asyncio.timeout(1), leases.hold("k"):
                pytest.fail("held twice")
        assert info.value.retry
        assert info.value.retry_after_seconds
        assert leases.waiting == 0
    async with leases.hold("k"):
        pass


async def test_a_free_lease_is_had_without_any_wait() -> None:
    async with Leases(0).hold("k") as waited:
        assert waited is False


@requirement("disconnect.new-message")
async def test_the_holder_is_told_that_somebody_waits() -> None:
    leases, calls, order, leave = Leases(5), list[str](), list[int](), asyncio.Event()
    leave.set()
    async with leases.hold("k", lambda: calls.append("first")):
        assert calls == []
        tasks = [asyncio.create_task(hold(leases, order, n, leave)) for n in range(2)]
        await settle()
        assert calls == ["first", "first"]
    await asyncio.gather(*tasks)
    assert calls == ["first", "first"]


async def test_who_came_while_the_holder_still_waited_counts_too() -> None:
    leases, calls, order, leave = Leases(5), list[str](), list[int](), asyncio.Event()

    async def second() -> None:
        async with leases.hold("k", lambda: calls.append("second")):
            order.append(2)

    async with leases.hold("k"):
        tasks = [asyncio.create_task(second())]
        await settle()
        leave.set()
        tasks.append(asyncio.create_task(hold(leases, order, 3, leave)))  # type: ignore[arg-type]
        await settle()
        assert calls == []
    await asyncio.gather(*tasks)
    assert calls == ["second"]
    assert order == [2, 3]


async def test_who_comes_before_the_next_in_line_has_woken_has_waited_too() -> None:
    leases, order, leave = Leases(5), list[int](), asyncio.Event()
    leave.set()
    async with leases.hold("k"):
        behind = asyncio.create_task(hold(leases, order, 1, leave))
        await settle()
    assert await hold(leases, order, 2, leave)
    assert await behind
    assert order == [1, 2]


async def test_a_lease_is_kept_until_its_work_is_done() -> None:
    leases, order, leave = Leases(5), list[int](), asyncio.Event()
    leave.set()
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with leases.hold("k"):
        leases.keep("k", work)
    next_one = asyncio.create_task(hold(leases, order, 1, leave))
    await settle()
    assert (order, leases.waiting) == ([], 1)
    work.set_result(None)
    assert await next_one
    assert await hold(leases, order, 2, leave) is False
    assert leases.waiting == 0


async def test_a_holder_that_fails_gives_the_lease_on() -> None:
    leases, calls = Leases(1), list[str]()
    with pytest.raises(ZeroDivisionError):
        async with leases.hold("k", lambda: calls.append("gone")):
            raise ZeroDivisionError
    async with leases.hold("k"):
        assert calls == []


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    leases, order, leave = Leases(5), list[int](), asyncio.Event()
    leave.set()
    async with leases.hold("k"):
        tasks = [asyncio.create_task(hold(leases, order, n, leave)) for n in range(3)]
        await settle()
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        assert leases.waiting == 2
    await asyncio.gather(*tasks[1:])
    assert order == [1, 2]


async def test_cancelled_at_the_moment_of_being_served_it_passes_the_lease_on() -> None:
    leases, order, leave = Leases(5), list[int](), asyncio.Event()
    leave.set()
    first = asyncio.Event()
    holder = asyncio.create_task(hold(leases, order, 0, first))
    await settle()
    waiter = asyncio.create_task(hold(leases, order, 1, leave))
    behind = asyncio.create_task(hold(leases, order, 2, leave))
    await settle()
    first.set()
    await asyncio.sleep(0)  # the holder has let go, the waiter has not yet woken
    waiter.cancel()
    await asyncio.wait({holder, waiter, behind})
    assert order == [0, 2]
    async with leases.hold("k") as waited:
        assert not waited


async def test_in_any_mixture_of_cancelling_waiting_and_failing_one_holds_at_a_time() -> None:
    chance = random.Random(11)
    leases = Leases(0.005)
    holding: dict[str, int] = {"a": 0, "b": 0}

    async def turn(key: str) -> None:
        async with leases.hold(key, lambda: None):
            holding[key] += 1
            assert holding[key] == 1
            try:
                await asyncio.sleep(chance.random() * 0.002)
                if chance.random() < 0.2:
                    raise ZeroDivisionError
            finally:
                holding[key] -= 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(400):
        tasks.append(asyncio.create_task(turn(chance.choice("ab"))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.001)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, AssertionError)]
    assert any(isinstance(end, ConversationBusy) for end in ends)
    assert holding == {"a": 0, "b": 0}
    assert leases.waiting == 0
    async with leases.hold("a"), leases.hold("b"):
        pass
