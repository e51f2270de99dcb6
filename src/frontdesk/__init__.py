"""Frontdesk: the front desk for your agents. OpenAI clients walk up to one door; agents with memory are behind it."""

__version__ = "0.1.0"
