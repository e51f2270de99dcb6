"""Agents as agents of the A2A protocol: `/a2a/{name}`, by JSON-RPC, and their cards.

Source: https://a2a-protocol.org/latest/specification/
"""
