"""How one writes an agent in Python: `from frontdesk import Agent, tool, hook, prompt, http, handoff, Skill, context`.

Nothing here knows the server. What it needs of that, skills are lent (`services`), and turns find in `context()`.
"""
