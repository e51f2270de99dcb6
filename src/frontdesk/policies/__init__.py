"""Who may ask, how much, and what is fetched on their behalf."""
