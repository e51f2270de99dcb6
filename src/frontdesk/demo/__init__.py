"""The demo: a real Letta server on this machine, and what it takes to try Frontdesk against it."""
