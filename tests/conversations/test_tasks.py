"""Background tasks: recognised by their whole shape, answered in the shape that the client reads.

The prompts are Open WebUI 0.12's and LibreChat's as they come over the wire, shortened where nothing hangs on it.
"""

import json
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.conversations.tasks import JSON_ANSWERS, KINDS, Policy, Task, canned, policy_for, recognised, shaped
from frontdesk.turn import Image, Message, Text, Tool, ToolResult, Turn
from tests.requirements import requirement

CHAT = "<chat_history>\nUSER: How do I bake bread?\nASSISTANT: With flour, water and time.\n</chat_history>"

TITLE = (
    "### Task:\nGenerate a concise title summarizing the chat history.\n### Guidelines:\n- Keep it short: 2-4 words.\n"
    '### Output:\nJSON format: { "title": "your concise title here" }\n### Examples:\n- { "title": "Stock Trends" },\n'
    f"### Chat History:\n{CHAT}"
)
TAGS = (
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history.\n\n### Guidelines:\n"
    '- If content is too short (less than 3 messages) or too diverse, use only ["General"]\n\n'
    f'### Output:\nJSON format: {{ "tags": ["tag1", "tag2", "tag3"] }}\n\n### Chat History:\n{CHAT}'
)
FOLLOW_UPS = (
    "### Task:\nSuggest 3-5 relevant follow-up questions or prompts that the user might naturally ask next.\n"
    '### Output:\nJSON format: { "follow_ups": ["Question 1?", "Question 2?", "Question 3?"] }\n'
    f"### Chat History:\n{CHAT}"
)
QUERIES = (
    "### Task:\nAnalyze the chat history to determine the necessity of generating search queries.\n\n### Guidelines:\n"
    '- Respond in the format: { "queries": ["query1", "query2"] }.\n- Today\'s date is: 2026-10-06.\n\n### Output:\n'
    'Strictly return in JSON format: \n{\n  "queries": ["query1", "query2"]\n}\n\n'
    f"### Chat History:\n{CHAT}\n"
)
IMAGE_PROMPT = (
    "### Task:\nGenerate a detailed prompt for am image generation task based on the given language and context.\n\n"
    '### Output:\nStrictly return in JSON format:\n{\n    "prompt": "Your detailed description here."\n}\n\n'
    "### Chat History:\n<chat_history>\nUSER: Hello\nASSISTANT: Hi!\nUSER: Draw a {red} cat\non a roof\n</chat_history>"
)
AUTOCOMPLETE = (
    "### Task:\nYou are an autocompletion system. Continue the text in `<text>` based on the **completion type**.  \n\n"
    '### **Output Rules**:\n- Respond only in JSON format: `{ "text": "<your_completion>" }`.\n\n'
    f'---\n### Context:\n{CHAT}\n<type>search query</type>  \n<text>{{"title": best</text>  \n#### Output:\n'
)
COMPACTION = (
    "### Task:\nSummarize the conversation history that will be compacted out of the active chat context.\n\n"
    "### Instructions:\n- Be factual and specific.\n\n### Previous Summary:\n\n\n### Messages Being Compacted:\n"
    "USER: How do I bake bread?\nASSISTANT: With flour.\n\n### Recent Messages Kept In Context:\nUSER: And then?"
)
EMOJI = (
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji. Interpret emotions from"
    " the message and reflect their facial expression using fitting, diverse emojis (e.g., 😊, 😢, 😡, 😱).\n\n"
    "Message: ```I am so happy```"
)
MOA = (
    'You have been provided with a set of responses from various models to the latest user query: "What is 1+1?"\n\n'
    'Your task is to synthesize these responses.\n\nResponses from models: """Two."""\n\n"""It is 2."""'
)
LIBRECHAT = (
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return the title"
    " itself.\n\nConversation:\nUser: How do I bake bread?\nAI: With flour, water and time."
)
LIBRECHAT_ASSISTANTS = (
    "Please generate a concise title (max 40 characters) for a conversation that starts with:\n"
    "User: How do I bake bread?\nAssistant: With flour.\n\nTitle:"
)
FUNCTIONS_SYSTEM = (
    'Available Tools: [{"name": "get_time"}]\n\nYour task is to choose and return the correct tool(s).\n\n'
    '- If no tools match the query, return an empty array: \n   {\n     "tool_calls": []\n   }'
)
FUNCTIONS_QUERY = 'Query: History:\nUSER: """What time is it?"""\nQuery: What time is it?'

PROMPTS = [
    ("title_generation", TITLE),
    ("tags_generation", TAGS),
    ("follow_up_generation", FOLLOW_UPS),
    ("query_generation", QUERIES),
    ("image_prompt_generation", IMAGE_PROMPT),
    ("autocomplete_generation", AUTOCOMPLETE),
    ("context_compaction", COMPACTION),
    ("emoji_generation", EMOJI),
    ("moa_response_generation", MOA),
    ("title", LIBRECHAT),
    ("title", LIBRECHAT_ASSISTANTS),
]


def asking(text: str, instructions: str = "") -> Turn:
    return Turn("turn_1", "Milo", (Message("user", (Text(text),)),), instructions=instructions)


def answered(task: Task) -> Any:
    return json.loads(canned(task))


# --- recognising -------------------------------------------------------------------------------------------------


@requirement("tasks.recognised")
@pytest.mark.parametrize(("kind", "prompt"), PROMPTS)
def test_the_clients_own_prompts_are_tasks(kind: str, prompt: str) -> None:
    assert recognised(asking(prompt), streaming=False) == Task(kind, prompt)


@requirement("tasks.recognised")
@pytest.mark.parametrize(("kind", "prompt"), PROMPTS)
def test_the_same_text_in_a_chat_is_a_message(kind: str, prompt: str) -> None:
    turn = asking(prompt)
    earlier = (Message("user", (Text("Hi"),)), Message("assistant", (Text("Hello"),)))
    assert recognised(turn, streaming=True) is None
    assert recognised(replace(turn, history=earlier), streaming=False) is None
    assert recognised(replace(turn, tools=(Tool("get_time"),)), streaming=False) is None
    assert recognised(replace(turn, input=turn.input * 2), streaming=False) is None
    with_picture = Message("user", (Text(prompt), Image("image/png", b"x")))
    assert recognised(replace(turn, input=(with_picture,)), streaming=False) is None
    assert recognised(asking(f"What does this do?\n{prompt}"), streaming=False) is None


@requirement("tasks.recognised")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "### Task:",
        "### Task: translate\n### Input:\nHello\n### Output:\n",
        '### Task:\nExtract the title of the page and answer in JSON format: { "title": "…" }',
        "### Task:\nExplain what <chat_history> means.",
        "Give this chat a title.",
        # what Open WebUI makes of a question about a document
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n"
        '### Output:\nProvide a clear and direct response to the user\'s query.\n<context>\n<source id="1">'
        f"{TITLE}</source>\n</context>\n\nWhat is this?",
    ],
)
def test_what_a_person_or_a_program_may_well_write_is_a_message(text: str) -> None:
    assert recognised(asking(text), streaming=False) is None


def test_a_custom_prompt_in_open_webuis_style_is_recognised_by_the_json_it_wants() -> None:
    prompt = '### Task:\nName this chat.\n### Output:\nJSON format: { "title": "…" }\nUSER: Hello'
    assert recognised(asking(prompt), streaming=False) == Task("title_generation", prompt)


def test_a_system_prompt_of_the_chat_does_not_hide_a_task_and_is_left_out() -> None:
    assert recognised(asking(TITLE, "You are a pirate."), streaming=False) == Task("title_generation", TITLE)


def test_choosing_a_tool_by_prompt_is_a_task_whose_tools_are_in_the_system_prompt() -> None:
    task = recognised(asking(FUNCTIONS_QUERY, f"You are a pirate.\n{FUNCTIONS_SYSTEM}"), streaming=False)
    assert task is not None
    assert task.kind == "function_calling"
    assert "get_time" in task.text
    assert task.text.endswith(FUNCTIONS_QUERY)
    assert recognised(asking("Query: History: tell me", "You are a pirate."), streaming=False) is None


def test_a_title_asked_for_in_the_system_prompt_is_a_task() -> None:
    system = "You are a professional conversation summarizer. Generate a concise title that captures the essence."
    task = recognised(asking("user: How do I bake bread?\nassistant: With flour.", system), streaming=False)
    assert task is not None
    assert task.kind == "title"
    assert canned(task) == "How do I bake bread?"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_header_makes_a_task_of_anything(kind: str) -> None:
    assert recognised(asking("Hello"), streaming=True, header=f" {kind} ") == Task(kind, "Hello")


def test_a_header_we_do_not_know_is_a_task_still() -> None:
    assert recognised(asking("Hello"), streaming=False, header="knitting_generation") == Task("other", "Hello")


@pytest.mark.parametrize("header", ["", "  ", "{{TASK}}", "${TASK}"])
def test_an_empty_header_or_one_that_was_not_filled_in_says_nothing(header: str) -> None:
    assert recognised(asking("Hello"), streaming=False, header=header) is None


def test_the_text_holds_all_that_was_said() -> None:
    turn = asking("Name this chat.", "Be brief.")
    turn = replace(turn, history=(Message("user", (Text("Hi"),)), Message("assistant", (Text("Hello"),))))
    task = recognised(turn, streaming=False, header="title_generation")
    assert task is not None
    assert task.text == "Be brief.\n\nUSER: Hi\nASSISTANT: Hello\n\nName this chat."
    assert answered(task) == {"title": "Hi"}


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Give this chat a short title.", "title"),
        ('Summarise this chat. Answer with { "follow_ups": [] }', "follow_up_generation"),
        ("Summarise this chat.", "other"),
    ],
)
def test_an_operators_pattern_matches_whatever_else_holds(prompt: str, kind: str) -> None:
    patterns = [re.compile("^never$"), re.compile("this chat")]
    assert recognised(asking(prompt), streaming=True, patterns=patterns) == Task(kind, prompt)
    assert recognised(asking("Hello", prompt), streaming=True, patterns=patterns) == Task(kind, f"{prompt}\n\nHello")
    assert recognised(asking("Hello"), streaming=True, patterns=patterns) is None


def test_tool_results_are_no_task_whatever_their_pattern() -> None:
    turn = replace(asking("x"), input=(ToolResult("call_1", (Text("this chat"),)),))
    assert recognised(turn, streaming=False, patterns=[re.compile("this chat")]) is None


# --- who answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["utility_model", "agent_model", "canned", "ephemeral", "reject"])
def test_the_operators_policy_holds_for_titles_and_the_agent_writes_merged_answers(policy: Policy) -> None:
    assert policy_for(Task("title_generation", TITLE), policy) == policy
    assert policy_for(Task("moa_response_generation", MOA), policy) == "ephemeral"


@pytest.mark.parametrize("kind", ["function_calling", "context_compaction", "other"])
def test_what_a_fixed_answer_would_spoil_goes_to_the_agent_on_the_side(kind: str) -> None:
    task = Task(kind, "x")
    assert policy_for(task, "canned") == "ephemeral"
    assert policy_for(task, "utility_model") == "utility_model"
    assert policy_for(task, "reject") == "reject"


# --- canned ------------------------------------------------------------------------------------------------------


@requirement("tasks.shapes")
def test_each_prompt_gets_the_shape_it_asks_for() -> None:
    assert {kind: canned(Task(kind, prompt)) for kind, prompt in PROMPTS} == {
        "title_generation": '{"title": "How do I bake bread?"}',
        "tags_generation": '{"tags": ["General"]}',
        "follow_up_generation": '{"follow_ups": []}',
        "query_generation": '{"queries": []}',
        "image_prompt_generation": '{"prompt": "Draw a (red) cat on a roof"}',
        "autocomplete_generation": '{"text": ""}',
        "context_compaction": "",
        "emoji_generation": "🙂",
        "moa_response_generation": "Two.",
        "title": "How do I bake bread?",
    }
    assert canned(Task("title", LIBRECHAT)) == "How do I bake bread?"
    assert canned(Task("function_calling", FUNCTIONS_QUERY)) == '{"tool_calls": []}'


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Hello", "Hello"),
        ("  \n\n# Plan **my** [trip](https://example.com/a_b) to `Rome`\n", "Plan my trip to Rome"),
        ("one two three four five six seven", "one two three four five six…"),
        ("Tell me about C++, please: it is hard.", "Tell me about C++, please: it…"),
        ("Explain internationalisation characteristics unambiguously", "Explain internationalisation characteristics…"),
        ("a" * 200, "a" * 49 + "…"),
        ("Wie backe ich Brötchen?", "Wie backe ich Brötchen?"),
        ("今天天气怎么样？", "今天天气怎么样？"),
        ("می‌خواهم نان بپزم", "می‌خواهم نان بپزم"),
        ('Who said "to be, or not"?\nASSISTANT: Hamlet', 'Who said "to be, or not"?'),
        ("<details>\n<summary>x</summary>\n</details>Hi", "x Hi"),
        ("say\x00 \u202ehi\u202c", "say hi"),
        ("", "New chat"),
        ("** --- ##", "New chat"),
    ],
)
def test_a_title_is_the_first_words_of_the_first_message(said: str, title: str) -> None:
    prompt = TITLE.replace("How do I bake bread?", said)
    assert answered(Task("title_generation", prompt)) == {"title": title}


def test_an_apostrophe_survives_open_webuis_page() -> None:
    """It makes `"` of `'`, `‘`, `’` and the backtick, and parses then."""
    answer = canned(Task("title_generation", TITLE.replace("How do I bake bread?", "What's `it’s` about?")))
    assert json.loads(re.sub("['‘’`]", '"', answer)) == {"title": "Whatʼs itʼs about?"}


def test_a_chat_that_quotes_a_chat_is_read_to_its_own_end() -> None:
    prompt = f"<chat_history>\nUSER: What is {CHAT} for?\nASSISTANT: Hm\n</chat_history>"
    assert answered(Task("title_generation", prompt))["title"].startswith("What is")


any_text = st.text(st.characters()) | st.text('{}[]"\\<>/:#*`\n USERAIchat_history', max_size=300)
pieces = st.sampled_from(["<chat_history>", "</chat_history>", "USER:", "\nASSISTANT:", "\n", '{"title": ', '"""', "`"])
broken = st.lists(pieces | any_text, max_size=20).map("".join)
kinds = st.sampled_from(sorted({*KINDS, "title", "other"}))


@given(kinds, broken)
def test_a_canned_answer_never_fails_and_is_what_the_client_reads(kind: str, text: str) -> None:
    answer = canned(Task(kind, text))
    if kind in JSON_ANSWERS:
        key, nothing = JSON_ANSWERS[kind]
        # as Open WebUI cuts it out: for titles and tags from the first brace, for queries and pictures from the last
        for start in (answer.find("{"), answer.rfind("{")):
            if kind != "title_generation" or start == 0:
                assert type(json.loads(answer[start : answer.rfind("}") + 1])[key]) is type(nothing)
        answer.encode()
    if kind.startswith("title"):
        title = json.loads(answer)["title"] if kind in JSON_ANSWERS else answer
        assert 0 < len(title) <= 50
        assert title.replace("\u200c", "").replace("\u200d", "").isprintable()


@given(broken, broken, st.booleans(), broken)
def test_recognising_never_fails(text: str, instructions: str, streaming: bool, header: str) -> None:
    task = recognised(asking(text, instructions), streaming, [re.compile("x")], header)
    assert task is None or text in task.text


@pytest.mark.parametrize("piece", ["USER: a\n", "[[[(", "<", "{ ", "<chat_history>", "ai:", " ", '{"title": '])
def test_huge_texts_take_no_time(piece: str) -> None:
    huge = "### Task:\n<chat_history>\nUSER: " + piece * (2_000_000 // len(piece)) + "</chat_history>"
    began = time.process_time()
    assert recognised(asking(huge), streaming=False)
    for kind in KINDS:
        canned(Task(kind, huge))
        shaped(Task(kind, TITLE), huge)
    assert time.process_time() - began < 5


# --- shaping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '{"title": "Bread"}',
        ' \n{"title": "Bread"}\n',
        '```json\n{"title": "Bread"}\n```',
        'Here you are: {"title": "Bread"} Anything else?',
        '<think>Perhaps {"title": "Flour"}?</think>{"title": "Bread"}',
        'Perhaps {"title": "Flour"}?</think>{"title": "Bread"}',
        'I try {"title": "Flour"}, or {"name": 1}, better:\n{"title": "Bread"}',
        'A brace { and {"title": 7} and {"title": "Bread"}',
    ],
)
def test_the_json_alone_is_left_of_an_answer(answer: str) -> None:
    assert shaped(Task("title_generation", TITLE), answer) == '{"title": "Bread"}'


@pytest.mark.parametrize(
    "answer",
    ["", "Bread", '{"title": ', '{"title": ["Bread"]}', '{"name": "Bread"}', "<think>{", '{"title": "B", "n": NaN}'],
)
def test_an_answer_without_the_json_becomes_the_canned_one(answer: str) -> None:
    assert shaped(Task("title_generation", TITLE), answer) == canned(Task("title_generation", TITLE))


def test_a_list_of_anything_but_words_is_no_list_of_tags() -> None:
    assert shaped(Task("tags_generation", TAGS), '{"tags": [{"name": "Food"}]}') == '{"tags": ["General"]}'
    assert shaped(Task("tags_generation", TAGS), '{"tags": ["Food"]}') == '{"tags": ["Food"]}'


@pytest.mark.parametrize(
    "call", ['{"tool_calls": [{"name": "a", "parameters": {"b": {}}}]}', '{"name": "a", "parameters": {}}']
)
def test_chosen_tools_may_come_as_a_list_or_as_one(call: str) -> None:
    assert shaped(Task("function_calling", "x"), f"Sure! {call}") == call


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("Baking Bread", "Baking Bread"),
        ('<think>Hm.</think>\n\n"Baking Bread"\nI hope you like it.', "Baking Bread"),
        ("## **Title: Baking Bread**", "Baking Bread"),
        ("Learning C++", "Learning C++"),
        ("<think>Hm.", "How do I bake bread?"),
        (" ** ", "How do I bake bread?"),
    ],
)
def test_a_plain_title_is_one_line_without_quotation_marks(answer: str, title: str) -> None:
    assert shaped(Task("title", LIBRECHAT), answer) == title


def test_an_emoji_is_one_character() -> None:
    assert shaped(Task("emoji_generation", EMOJI), "I would say 😊 or 😢") == "😊"
    assert shaped(Task("emoji_generation", EMOJI), "happy") == "🙂"


def test_a_summary_is_left_as_it_is() -> None:
    assert (
        shaped(Task("context_compaction", COMPACTION), "<think>x</think>\n# Summary\n- bread {")
        == "# Summary\n- bread {"
    )


@given(kinds, broken, broken)
def test_a_shaped_answer_never_fails_and_is_what_the_client_reads(kind: str, text: str, answer: str) -> None:
    got = shaped(Task(kind, text), answer)
    if kind in JSON_ANSWERS:
        assert isinstance(json.loads(got), dict)
