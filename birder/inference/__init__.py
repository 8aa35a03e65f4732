"""From pictures to names: one picture, a batch, a million files."""
