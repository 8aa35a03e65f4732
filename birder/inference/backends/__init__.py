"""Ways to compute a network's answers: torch, and what is faster on some machines."""
