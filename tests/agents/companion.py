"""The agents of the tests of memory. They speak with the scripted model, wherever OpenAI is."""

from frontdesk import Agent, handoff
from frontdesk.agents.skills.memory import Block, Memory

MODEL = "openai/scripted"

milo = Agent(
    "milo",
    model=MODEL,
    instructions="You are Milo.",
    skills=[Memory({"human": "Nobody knows yet.", "rules": Block("Be kind.", read_only=True)})],
    handoffs=[handoff("otto")],
)
otto = Agent("otto", model=MODEL, instructions="You are Otto.", skills=[Memory()])
board = Agent("board", model=MODEL, skills=[Memory(blocks={"news": ""}, shared=True)])

agents = [milo, otto, board]
