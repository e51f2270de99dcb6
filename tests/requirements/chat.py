"""Chat Completions."""

from tests.requirements import Requirement

CREATE = "https://platform.openai.com/docs/api-reference/chat/create"
STREAMING = "https://platform.openai.com/docs/api-reference/chat/streaming"
IMAGES = "https://platform.openai.com/docs/guides/images-vision"
REASONING = "https://api-docs.deepseek.com/guides/thinking_mode"
OPENAI_PYTHON = "https://github.com/openai/openai-python"
LETTA = "Letta 0.16.7, measured"
OURS = "Frontdesk"

REQUIREMENTS = {
    "chat.plain": Requirement("A plain reply has the agent's text, a finish reason and usage", CREATE),
    "chat.text.exact": Requirement("Text survives byte for byte in both directions, streaming and not", CREATE),
    "chat.equal": Requirement("A streamed and a plain reply say the same, whatever the agent does", CREATE),
    "chat.stream.order": Requirement(
        "A stream has the role first, one finish chunk and `[DONE]` last, and one id, time and model", STREAMING
    ),
    "chat.stream.frames": Requirement("Its events are `data:` lines only: no names, no ids", OPENAI_PYTHON),
    "chat.stream.usage": Requirement(
        "With `include_usage`, usage is `null` until a last chunk without choices; else there is none", STREAMING
    ),
    "chat.stream.helpers": Requirement("The stream helpers of the official clients end well", OPENAI_PYTHON),
    "chat.headers": Requirement(
        "Every answer names its request, turn, conversation and how that was found; streams are not to be cached, "
        "buffered or compressed",
        OURS,
    ),
    "chat.paths": Requirement("The paths work without `/v1` and with a slash at the end", "Open WebUI, Home Assistant"),
    "chat.messages.apart": Requirement("Two messages of one turn do not run together", LETTA),
    "chat.empty": Requirement("An empty answer ends normally", LETTA),
    "chat.finish.length": Requirement(
        "A reply cut at the token limit has the finish reason `length`",
        CREATE,
    ),
    "chat.finish.content-filter": Requirement(
        "A filtered reply has the finish reason `content_filter`",
        CREATE,
        "Letta does not tell, so it says `stop`",
    ),
    "chat.refusal": Requirement(
        "A refusal is shown as one", CREATE, "Letta drops its text, so it is an empty answer that ends normally"
    ),
    "chat.usage": Requirement("Usage is the sum over all steps of the turn, cached and reasoning tokens too", CREATE),
    "chat.reasoning": Requirement("Reasoning is in `reasoning_content`, never in the text", REASONING),
    "chat.reasoning.field": Requirement(
        "The field can be `reasoning_content`, `reasoning`, both, a `<think>` block, or left out",
        "Open WebUI, LibreChat, Vercel AI SDK",
    ),
    "chat.reasoning.own-tools": Requirement(
        "What the agent's own tools do shows as lines of its reasoning, with their outcome, unless switched off", OURS
    ),
    "chat.params.ignored": Requirement("Parameters without consequence, and unknown ones, are accepted", CREATE),
    "chat.params.reported": Requirement(
        "Parameters nobody can honour are accepted and listed in `x-frontdesk-ignored-params`", OURS
    ),
    "chat.params.strict": Requirement("With `strict_params` they are a 400 instead", OURS),
    "chat.params.refused": Requirement(
        "Parameters whose silent loss would break the caller are a 400 with `param` and `code`", CREATE
    ),
    "chat.params.types": Requirement("Wrong types and missing fields are a 400 which names their place", CREATE),
    "chat.body.malformed": Requirement("A body which is no JSON object is a 400, however deep", CREATE),
    "chat.body.too-large": Requirement("A body over the limit is a 413, chunked or not", CREATE),
    "chat.body.method": Requirement("Other methods are a 405 with `allow`", CREATE),
    "chat.response-format": Requirement(
        "A JSON schema is enforced",
        "https://platform.openai.com/docs/guides/structured-outputs",
    ),
    "chat.response-format.parse": Requirement("`.parse()` of the official client works", "openai-python"),
    "chat.response-format.told": Requirement(
        "Where the model provider does not enforce it, the agent is told, its answer checked and mended once, and that "
        "is reported; `strict` is refused",
        OURS,
    ),
    "chat.transcript.long": Requirement("A transcript of 2,000 messages is heard whole and in order", OURS),
    "chat.system": Requirement(
        "System and developer messages come once and in order, on top of the agent's own prompt, which stays", OURS
    ),
    "chat.system.changed": Requirement(
        "In a pinned conversation a changed one takes the place of the one before", "Roo Code"
    ),
    "chat.system.long": Requirement(
        "60,000 characters stand byte for byte in the system slot, with the agent's memory in view", "Roo Code"
    ),
    "chat.system.isolated": Requirement("Conversations of one agent have each their own prompt and settings", OURS),
    "chat.system.memory": Requirement("Memory that changed elsewhere is in view when a conversation goes on", OURS),
    "chat.system.places": Requirement("Where prompts go is set for the server, its agents and its keys", OURS),
    "chat.system.block": Requirement("In an agent's one thread a block may hold the prompt of whoever speaks", OURS),
    "chat.params.settings": Requirement("Temperature, token limit and the like hold for their request alone", CREATE),
    "chat.params.model": Requirement("A request may choose another model where the operator allows it", OURS),
    "chat.system.remove": Requirement("`REMOVE_SYSTEM_PROMPT` keeps them from the agents", OURS),
    "files.text": Requirement(
        "The text of a file reaches the model, with its name, unchanged",
        "https://platform.openai.com/docs/guides/pdf-files",
    ),
    "files.refused": Requirement(
        "What cannot be carried is a 400 with its place, and leaves nothing at the agent", OURS, "Letta takes no PDF"
    ),
    "files.once": Requirement("A chat with files is one conversation, which hears each once", OURS),
    "chat.user.name": Requirement("The name of a speaker reaches the model", CREATE),
    "chat.user.trailing": Requirement("Every message since the agent's last is new, not only the last", "Open WebUI"),
    "chat.user.nothing-new": Requirement("A request which says nothing is a 400", LETTA),
    "chat.assistant-last": Requirement("A transcript may end with the agent's own words", CREATE),
    "images.data-url": Requirement("Pictures as data URLs reach the model in their places", IMAGES),
    "images.address": Requirement("Pictures at an address are fetched by the gateway", IMAGES),
    "images.tool-result": Requirement(
        "A picture in a tool's result reaches the model", IMAGES, "Letta tells the model that an image was left out"
    ),
    "images.refused": Requirement("What is no picture is a 400 with its place", IMAGES),
    "images.private": Requirement(
        "Private addresses are closed unless allowed, and the answer does not tell what is there",
        "https://owasp.org/www-community/attacks/Server_Side_Request_Forgery",
    ),
}
