"""A run over any number of pictures that is never lost: the same command goes on where the last one ended."""
