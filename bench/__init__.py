"""Measures Frontdesk against its own floor: a fast fake Letta, a minimal translator, and a load client.

Run `python -m bench` from the root of the repository; `bench/README.md` says how to read the answer.
"""
