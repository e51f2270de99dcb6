"""An agent that counts with a tool: what the model writes is checked, and mistakes are told to it.

export OPENAI_API_KEY=sk-…
cd examples
frontdesk serve --agents calculator:agent
frontdesk chat calculator                       # in another terminal
"""

import ast
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from frontdesk import Agent, tool

BINARY: dict[type[ast.operator], Callable[[float, float], float | complex]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
}


@tool(retries=3)
def calculate(expression: Annotated[str, Field(max_length=200)]) -> str:
    """Calculate.

    Args:
        expression: Numbers with + - * / % ** and brackets, such as `(2 + 3) * 4`.
    """
    return f"{value(ast.parse(expression.strip(), mode='eval').body):.12g}"


def value(node: ast.expr) -> float:
    """What an expression comes to. Floats alone, so that nothing grows without end."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            result = BINARY[type(op)](value(left), value(right))
            if isinstance(result, complex):
                raise ValueError("That has no real result.")
            return result
        case _:
            raise ValueError(f"`{ast.unparse(node)}` cannot be calculated: use numbers, + - * / % ** and brackets.")


agent = Agent(
    "calculator",
    model="openai/gpt-5-mini",
    description="Calculates.",
    instructions="You calculate with your tool, never by yourself, and give the result in one short sentence.",
    tools=[calculate],
)
