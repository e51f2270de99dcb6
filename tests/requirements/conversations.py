"""Which conversation a request belongs to, and that nothing is lost, doubled or crossed."""

from tests.requirements import Requirement

OURS = "Frontdesk"
WEBUI = "Open WebUI"
LETTA = "Letta 0.16.7, measured"
SDK = "https://github.com/openai/openai-python#retries"

REQUIREMENTS = {
    "conversations.lineage": Requirement(
        "A chat without a pin is one conversation, in which each message comes once and in order", OURS
    ),
    "conversations.mangled": Requirement(
        "A chat is recognised though its client wraps, unwraps or trims texts, or sends only the latest part", WEBUI
    ),
    "conversations.twins": Requirement("Chats that say the same never meet", OURS),
    "conversations.regenerate": Requirement("A regenerated answer knows nothing of the one it replaces", WEBUI),
    "conversations.edit": Requirement("An edited message leaves no trace of what it replaces", WEBUI),
    "conversations.branch": Requirement("Each branch of a chat goes on by itself", WEBUI),
    "conversations.continue": Requirement("An unfinished answer that comes back last is gone on with", WEBUI),
    "conversations.branch-tools": Requirement(
        "A branch made after tools were used holds their calls and results as they were", LETTA
    ),
    "conversations.seeded": Requirement(
        "A transcript from elsewhere is taken up (or used once, or refused, by setting), each message once", OURS
    ),
    "conversations.forged": Requirement(
        "Made-up transcripts and ids find nobody's conversation; very long ones are served", OURS
    ),
    "conversations.pin": Requirement(
        "`x-frontdesk-conversation`, any text up to 256 characters, or another header, names a conversation to which "
        "only the new is added",
        OURS,
    ),
    "conversations.chat-headers": Requirement(
        "The headers by which chat clients name their chats are pins whose client sends everything", WEBUI
    ),
    "conversations.id": Requirement("The id which an answer gives is a pin too", OURS),
    "conversations.restart": Requirement(
        "Chats, pins, ids and unanswered calls outlive a restart of the gateway", OURS
    ),
    "conversations.foreign": Requirement(
        "An id that is forged, deleted, another key's or another agent's is 404 `conversation_not_found`", OURS
    ),
    "conversations.template": Requirement("A template left unexpanded counts as no pin", WEBUI),
    "conversations.apart": Requirement("Two pins, and the same pin of two keys, do not see each other", OURS),
    "conversations.concurrent": Requirement("Chats that run at the same time do not mix", OURS),
    "conversations.one-at-a-time": Requirement(
        "Messages sent at once to one pin run one after the other, and all arrive", LETTA
    ),
    "conversations.stateless": Requirement("`Name:stateless` keeps nothing from one request to the next", OURS),
    "conversations.single": Requirement("`Name:single` is the agent's own thread, shared by all", OURS),
    "conversations.modes": Requirement("The mode is chosen by suffix, key, agent or server, in this order", OURS),
    "conversations.model-of-truth": Requirement(
        "Whatever clients do, in any order, with restarts between: the agent hears exactly what the client shows", OURS
    ),
    "retries.key": Requirement(
        "An `Idempotency-Key` brings one turn; its answer is given again; with another body it is 409", SDK
    ),
    "retries.sdk": Requirement("A request that times out and is sent again by an SDK reaches the agent once", SDK),
    "retries.join": Requirement("A stream that was cut and is asked for again is joined, with all of its text", OURS),
    "retries.honest": Requirement("Two equal requests that are no retries are two", OURS),
    "retries.after-failure": Requirement("A turn sent again after it failed is in the conversation once", "Roo Code"),
    "retries.crash": Requirement(
        "When the gateway is killed in a turn, its outcome is found again and given to whoever asks again", OURS
    ),
    "store.down": Requirement(
        "Without its store nothing reaches an agent (503 `store_unavailable`); a turn that runs ends well", OURS
    ),
    "tasks.recognised": Requirement(
        "Titles, tags, follow-ups, queries and the like are recognised, and a person's own words are not", WEBUI
    ),
    "tasks.shapes": Requirement("They are answered in the shapes that their prompts ask for", WEBUI),
    "tasks.no-trace": Requirement("They reach no conversation and no memory of an agent", WEBUI),
    "replicas.shared": Requirement(
        "Several processes on one store serve the same chats; when one is killed, nothing is lost or doubled", OURS
    ),
    "housekeeping.retention": Requirement("What nobody comes back to is deleted, here and on the server", OURS),
    "api.conversations": Requirement(
        "Conversations can be listed, read, named, forked and deleted by their owner",
        "https://platform.openai.com/docs/api-reference/conversations",
    ),
}
