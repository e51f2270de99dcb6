"""Health, metrics, load, faults, the command line."""

from tests.requirements import Requirement

LETTA = "Letta 0.16.7, measured"
OURS = "Frontdesk"

REQUIREMENTS: dict[str, Requirement] = {
    "operations.health": Requirement(
        "`/health` says how each backend is; after a failure it says so until the backend is back", OURS
    ),
    "operations.new-agent": Requirement("A new agent is found by name before the next listing", OURS),
    "operations.duplicates": Requirement("Agents of one name are known by their ids, and a 404 lists them", OURS),
    "operations.unknown-is-cheap": Requirement("Names nobody knows do not hammer the backend", OURS),
    "operations.one-per-pin": Requirement("First requests of one pin make one conversation", LETTA),
    "operations.order": Requirement("Turns of one conversation run one after another, first come first served", LETTA),
    "operations.busy": Requirement(
        "A conversation that stays busy is 409 `conversation_busy` with `retry-after`, and nothing was sent", LETTA
    ),
    "operations.overload": Requirement(
        "More turns than there are places wait in a bounded line, then 429 `server_overloaded` with `retry-after`", OURS
    ),
    "load.streams": Requirement("1,000 streams at once: every reply whole, none mixed with another", OURS),
    "load.plain": Requirement("100 plain requests at once: every reply whole, none mixed with another", OURS),
    "load.agents": Requirement("20 agents with a stream each at once, on a real Letta server", LETTA),
    "load.chats": Requirement("50 chats with one agent, 10 at a time, on a real Letta server", LETTA),
    "disconnect.grace": Requirement(
        "After a client has hung up its turn may finish within the grace; then the agent's run is cancelled", LETTA
    ),
    "disconnect.cancel": Requirement("`cancel` stops the run at once, before and after the first token", LETTA),
    "disconnect.detach": Requirement("`detach` lets the turn finish, whoever waits for the conversation", LETTA),
    "disconnect.new-message": Requirement("A new message for the conversation ends the grace at once", "Open WebUI"),
    "disconnect.redelivery": Requirement(
        "What Letta drops with a cancelled turn is told again with the next one: the message, and the text shown", LETTA
    ),
    "disconnect.queued": Requirement("Who hangs up while waiting in line is never sent", OURS),
    "disconnect.no-leak": Requirement("Clients that hang up leave no turn, task or stream behind", OURS),
    "shutdown.finishes": Requirement("Told to stop, the server lets running turns finish for a bounded time", OURS),
    "shutdown.bounded": Requirement("It ends in bounded time, also when the backend does not answer", OURS),
    "shutdown.cancels": Requirement(
        "Then each client is told `server_shutting_down`, and the runs are cancelled", OURS
    ),
    "crash.in-band": Requirement("When Letta is killed, each open stream ends with an error frame", LETTA),
    "crash.recovers": Requirement("When Letta is back, the gateway is too, by itself", LETTA),
    "crash.conversations": Requirement("Pinned conversations go on after a crash of Letta", LETTA),
}
