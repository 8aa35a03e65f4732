"""The engine: from a recipe to a run directory."""
