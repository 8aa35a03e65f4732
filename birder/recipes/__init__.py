"""Named recipes, each a function whose docstring says what it takes and what it gives."""
