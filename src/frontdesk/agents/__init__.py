"""How one writes an agent in Python."""
