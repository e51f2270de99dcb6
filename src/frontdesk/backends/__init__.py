"""How agents speak."""
