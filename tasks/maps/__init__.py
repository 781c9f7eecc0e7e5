"""How good maps are, and what pool and network do to patterns and noise."""
