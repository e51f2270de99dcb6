"""How callers speak."""
