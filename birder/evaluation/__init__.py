"""How good a model is: numbers, tables, and what it confuses."""
