"""The promises that every network and every objective keeps, as checks for tests: of this package, and of yours.

    from birder.testing import check_network, check_objective

    def test_my_network():
        check_network("my_network_small", size=(64, 64), num_layers=(1, 1, 2, 1))

    def test_my_objective():
        check_objective(lambda: MyObjective(small_network(), MyConfig()))

A check takes about a second with a small configuration.
"""

from birder.testing.networks import BF16_TOLERANCE, NUM_CLASSES, PROMISES, check_network, other_sizes
from birder.testing.objectives import OBJECTIVE_PROMISES, check_objective, labelled_pictures, small_network, small_vit
from birder.testing.outputs import IMAGES, TOLERANCE, Build, pictures
from birder.testing.promise import BrokenPromise

__all__ = [
    "BF16_TOLERANCE",
    "IMAGES",
    "NUM_CLASSES",
    "OBJECTIVE_PROMISES",
    "PROMISES",
    "TOLERANCE",
    "BrokenPromise",
    "Build",
    "check_network",
    "check_objective",
    "labelled_pictures",
    "other_sizes",
    "pictures",
    "small_network",
    "small_vit",
]
