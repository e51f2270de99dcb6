"""Tools which the client runs, and those the agent runs."""

from tests.requirements import Requirement

GUIDE = "https://platform.openai.com/docs/guides/function-calling"
NODE = "https://github.com/openai/openai-node"
LETTA = "Letta 0.16.7, measured"
OURS = "Frontdesk"

REQUIREMENTS = {
    "tools.round-trip": Requirement("The agent calls the client's tool and goes on with its result", GUIDE),
    "tools.parallel": Requirement("Parallel calls come together and are answered in any order", GUIDE),
    "tools.parallel.partial": Requirement("A call left without a result is told to the agent as an error", OURS),
    "tools.parallel.off": Requirement("With `parallel_tool_calls: false` there is one call at a time", GUIDE),
    "tools.stream": Requirement(
        "Arguments come bit by bit; id and name once; each call has its own index; no arguments are `{}`", NODE
    ),
    "tools.arguments": Requirement("Arguments are what the model wrote, also when that is not JSON", GUIDE),
    "tools.call-id": Requirement("Call ids are unique and have at most 40 characters", GUIDE),
    "tools.schema": Requirement("A tool's schema and description reach the model verbatim", GUIDE),
    "tools.choice": Requirement("`tool_choice` none, auto and allowed_tools decide what the model is offered", GUIDE),
    "tools.choice.forced": Requirement(
        "`tool_choice` required or named forces a call", GUIDE, "an agent cannot be forced: it is a 400"
    ),
    "tools.invalid": Requirement("A tool that is none is a 400 with its place", GUIDE),
    "tools.reserved": Requirement("A tool with the name of one of the agent's memory tools is a 400", LETTA),
    "tools.per-request": Requirement(
        "Tools belong to their request: nothing stays behind, and requests at the same time do not disturb each other",
        LETTA,
    ),
    "tools.result": Requirement("A result reaches the agent as it is, also when it is empty", GUIDE),
    "tools.result.long": Requirement("A very long result is cut visibly", LETTA),
    "tools.error": Requirement(
        "A failed tool reaches the agent as a failure: `Error: …`, an `error` object, or a flag",
        "LangChain, MCP clients",
    ),
    "tools.unknown-call": Requirement(
        "A result for a call which is forged, or was made to another key or by another agent, is a 400 that reaches "
        "nobody",
        OURS,
    ),
    "tools.then-user": Requirement("A user message may follow a result", "Roo Code"),
    "tools.abandoned": Requirement("A new message goes through although a call was never answered", LETTA),
    "tools.late": Requirement("A result that comes after the conversation went on is told as text", OURS),
    "tools.retry": Requirement(
        "A result sent twice does not come twice",
        "OpenAI's SDKs",
        "the repeated request is answered anew, in a conversation of its own",
    ),
    "tools.retry-after-failure": Requirement(
        "When the model failed after the results had come, the same request goes on where it stopped", LETTA
    ),
    "tools.history": Requirement("Tool exchanges of an unknown transcript are told as text", LETTA),
    "tools.own-never-asked": Requirement("The agent's own tools are never asked of the client", OURS),
}
