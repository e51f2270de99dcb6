"""The agents of the tests of payments. They speak with the scripted model, wherever OpenAI is."""

from frontdesk import Agent
from frontdesk.agents.skills import X402, Budget

NETWORK = "eip155:84532"
PAYEE = "0x" + "ab" * 20

facilitator = ""
"""Where payments are checked and collected; set by the tests."""


def agents() -> list[Agent]:
    price = X402(pay_to=PAYEE, network=NETWORK, price="0.01", facilitator=facilitator)
    return [
        Agent("paid", model="openai/scripted", skills=[Budget("0 tokens", x402=price)]),
        Agent("trial", model="openai/scripted", skills=[Budget("45 tokens", reserve="10 tokens", x402=price)]),
    ]
