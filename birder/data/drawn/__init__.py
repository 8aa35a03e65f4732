"""Drawn birds: a deterministic generator of pictures of invented species, for tests, documentation and the demo.

birds = DrawnBirds(families=4, species=12, difficulty=0.5, size=(128, 128), seed=0)
drawing = birds.draw(label=3, index=17)          # a pure function of its arguments
write_folder(birds, Path("drawn"), per_species=100)
field_guide(birds).save("plate.png")
"""

from birder.data.drawn.birds import Box, Drawing, DrawnBirds
from birder.data.drawn.folder import write_folder
from birder.data.drawn.guide import field_guide
from birder.data.drawn.species import Species

__all__ = ["Box", "Drawing", "DrawnBirds", "Species", "field_guide", "write_folder"]
