"""How many turns at once."""

import asyncio
import random
import time

import pytest

from frontdesk.errors import Overloaded, RateLimited
from frontdesk.policies.admission import Admission


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(admission: Admission, order: list[int], number: int, leave: asyncio.Event) -> None:
    async with admission.hold():
        order.append(number)
        await leave.wait()


async def test_as_many_turns_run_as_there_are_places_and_the_others_wait() -> None:
    admission, order, leave = Admission(2, 5, 1), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, order, n, leave)) for n in range(4)]
    await settle()
    assert (admission.in_flight, admission.waiting, order) == (2, 2, [0, 1])
    leave.set()
    await asyncio.gather(*tasks)
    assert (admission.in_flight, admission.waiting, order) == (0, 0, [0, 1, 2, 3])


async def test_first_come_is_first_served() -> None:
    admission, order = Admission(1, 10, 1), list[int]()
    leaves = [asyncio.Event() for _ in range(5)]
    tasks = [asyncio.create_task(hold(admission, order, n, leaves[n])) for n in range(5)]
    await settle()
    for n in range(5):
        assert order == list(range(n + 1))
        leaves[n].set()
        await settle()
    await asyncio.gather(*tasks)


async def test_a_newcomer_does_not_overtake_the_line() -> None:
    admission, order, leave = Admission(1, 10, 1), list[int](), asyncio.Event()
    async with admission.hold():
        first = asyncio.create_task(hold(admission, order, 1, leave))
        await settle()
    second = asyncio.create_task(hold(admission, order, 2, leave))  # the place is free, but the first has it
    leave.set()
    await asyncio.gather(first, second)
    assert order == [1, 2]


async def test_beyond_the_line_a_turn_is_refused_at_once() -> None:
    admission = Admission(1, 0, 60)
    async with admission.hold():
        with pytest.raises(Overloaded) as info:
            async with asyncio.timeout(0.5), admission.hold():
                pass
        assert isinstance(info.value, RateLimited)
        assert info.value.public_code == "server_overloaded"
        assert info.value.retry_after_seconds
    assert admission.in_flight == 0


async def test_waiting_too_long_is_overloaded() -> None:
    admission = Admission(1, 1, 0.02)
    async with admission.hold():
        began = time.perf_counter()
        with pytest.raises(Overloaded):
            async with admission.hold():
                pass
        assert 0.015 < time.perf_counter() - began < 5, "the other one stays for ever"
        assert admission.waiting == 0
    assert admission.in_flight == 0


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    admission, order, leave = Admission(1, 1, 1), list[int](), asyncio.Event()
    async with admission.hold():
        task = asyncio.create_task(hold(admission, order, 1, leave))
        await settle()
        task.cancel()
        await asyncio.wait({task})
        assert admission.waiting == 0
    assert admission.in_flight == 0


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancelling_at_the_moment_of_being_served_leaks_no_place(cancel_first: bool) -> None:
    admission, order, leave = Admission(1, 3, 1), list[int](), asyncio.Event()
    leave.set()
    first = asyncio.Event()
    holder = asyncio.create_task(hold(admission, order, 0, first))
    await settle()
    waiter = asyncio.create_task(hold(admission, order, 1, leave))
    behind = asyncio.create_task(hold(admission, order, 2, leave))
    await settle()
    if cancel_first:
        waiter.cancel()
        first.set()
    else:
        first.set()
        await asyncio.sleep(0)  # the holder has given its place on, the waiter has not yet woken
        waiter.cancel()
    await asyncio.wait({holder, waiter, behind})
    assert waiter.cancelled()
    assert order == [0, 2]
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_in_any_mixture_of_cancelling_waiting_and_failing_no_place_is_lost() -> None:
    chance = random.Random(7)
    admission = Admission(3, 20, 0.005)
    most = 0

    async def turn() -> None:
        nonlocal most
        async with admission.hold():
            most = max(most, admission.in_flight)
            await asyncio.sleep(chance.random() * 0.004)
            if chance.random() < 0.2:
                raise ZeroDivisionError

    tasks: list[asyncio.Task[None]] = []
    for _ in range(400):
        tasks.append(asyncio.create_task(turn()))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.001)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_a_free_place_costs_little() -> None:
    """Measured 1.7 µs; the bound leaves room for a busy machine."""
    admission = Admission(10, 10, 1)
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            async with admission.hold():
                pass
        best = min(best, time.perf_counter() - began)
    assert best / 200 < 20e-6
