"""Which conversation a request belongs to."""

from tests.requirements import Requirement

OURS = "Frontdesk"

REQUIREMENTS = {
    "conversations.seeded": Requirement(
        "Without a pin a request has a conversation of its own, in which each message of its transcript comes once "
        "and in order",
        OURS,
        "a chat without a pin is told again with every request, until lineage is there",
    ),
    "conversations.pin": Requirement(
        "`x-frontdesk-conversation`, any text up to 256 characters, or another header, names a conversation to which "
        "only the new is added",
        OURS,
    ),
    "conversations.id": Requirement("The id which an answer gives is a pin too", OURS),
    "conversations.restart": Requirement("Pins, ids and unanswered calls outlive a restart of the gateway", OURS),
    "conversations.foreign": Requirement(
        "An id that is forged, deleted, another key's or another agent's is 404 `conversation_not_found`", OURS
    ),
    "conversations.template": Requirement("A template left unexpanded counts as no pin", "Open WebUI"),
    "conversations.apart": Requirement("Two pins, and the same pin of two keys, do not see each other", OURS),
    "conversations.concurrent": Requirement("Chats that run at the same time do not mix", OURS),
    "conversations.one-at-a-time": Requirement(
        "Messages sent at once to one pin run one after the other, and all arrive", "Letta 0.16.7, measured"
    ),
    "conversations.stateless": Requirement("`Name:stateless` keeps nothing from one request to the next", OURS),
    "conversations.single": Requirement("`Name:single` is the agent's own thread, shared by all", OURS),
}
