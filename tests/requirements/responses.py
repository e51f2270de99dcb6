"""The Responses API."""

from tests.requirements import Requirement

CREATE = "https://platform.openai.com/docs/api-reference/responses/create"
STREAMING = "https://platform.openai.com/docs/api-reference/responses-streaming"
STATE = "https://platform.openai.com/docs/guides/conversation-state"
BACKGROUND = "https://platform.openai.com/docs/guides/background"
DOCUMENT = "OpenAI's OpenAPI document"
OURS = "Frontdesk"

REQUIREMENTS = {
    "responses.plain": Requirement("A plain response, whole: text, reasoning, usage, settings, conversation", CREATE),
    "responses.stream": Requirement(
        "A streamed response says the same, with OpenAI's events in their order and numbered from 0", STREAMING
    ),
    "responses.tools": Requirement(
        "Tools that the client runs, streamed and not, their results by response id, conversation or full input", CREATE
    ),
    "responses.own-tools": Requirement(
        "What the agent's own tools do is shown as `mcp_call` items, or as pairs, and never asked of the client", OURS
    ),
    "responses.parse": Requirement("The SDK's structured output parses", CREATE),
    "responses.errors": Requirement(
        "Errors are OpenAI's; a failure within a stream is `error` and then `response.failed`", STREAMING
    ),
    "responses.previous": Requirement("`previous_response_id`: the agent hears each message once", STATE),
    "responses.conversation": Requirement("`conversation`: the agent hears each message once", STATE),
    "responses.input": Requirement("The full input each time: the agent hears each message once", STATE),
    "responses.branch": Requirement("An earlier response is branched from; neither branch knows of the other", STATE),
    "responses.both-protocols": Requirement("A chat is gone on with as responses, and back", OURS),
    "responses.references": Requirement("`item_reference` stands for what was said", "Vercel AI SDK"),
    "responses.retrieve": Requirement("A response can be read again, with its input, and forgotten", CREATE),
    "responses.store": Requirement("With `store: false` it cannot", CREATE),
    "responses.tenancy": Requirement("Nobody finds, goes on after, or cancels another's response", OURS),
    "responses.shapes": Requirement("What Codex, Open WebUI and the AI SDK really send is served", "recorded requests"),
    "responses.retries": Requirement("A response that is asked for again is not given to the agent again", OURS),
    "responses.background": Requirement("With `background` it runs without its client, and is polled", BACKGROUND),
    "responses.background.stream": Requirement(
        "… or streamed, and gone on with after any event, while it runs and later, with the same numbers", BACKGROUND
    ),
    "responses.background.replicas": Requirement("… from any process on the same store", OURS),
    "responses.background.restart": Requirement(
        "… and its end is found out when the process dies or is stopped meanwhile", OURS
    ),
    "responses.cancel": Requirement("A background response can be cancelled", BACKGROUND),
    "responses.document": Requirement("Every body and event is as OpenAI's types have it", DOCUMENT),
}
