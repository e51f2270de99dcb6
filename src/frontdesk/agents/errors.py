"""What is wrong with an agent, told before it is served."""


class AgentError(ValueError):
    """An agent, a skill or a tool is not as it must be. The message says what, where, and what mends it."""
