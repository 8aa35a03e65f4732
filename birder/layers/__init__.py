"""Small modules, each one concept, that networks are built from."""
