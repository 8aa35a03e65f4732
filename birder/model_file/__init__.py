"""A model in a file: weights, and all that is needed to use them.

Two formats, told apart by the suffix. ``.pt`` is a torch archive of one dictionary, read without executing code;
``.safetensors`` has the same entries as text in its header. The entries are those of the published models: ``state``,
``task``, ``signature``, ``class_to_idx``, ``rgb_stats``, ``birder_version`` and, where the network was built with
options of its own, ``config``; and two that only files of this package have: ``network``, its registered name, and
``calibration``, what ``birder calibrate`` found (see ``birder.model_file.calibration``).

Files are mapped into memory, privately: a loaded network never writes to its file, and needs no second copy of the
weights. A file may be replaced while it is in use (``birder.files.atomic``), but not written over in place.

The public names are imported when they are first used: what is told of a calibration needs no torch.
"""

from typing import TYPE_CHECKING

from birder.lazy import lazy

if TYPE_CHECKING:
    from birder.model_file.calibration import Calibration, Novelty
    from birder.model_file.contents import TASK, ModelFile, read_model, write_model
    from birder.model_file.formats import FORMATS, check_format
    from birder.model_file.models import ModelInfo, load_model, load_model_with_cfg, save_model
    from birder.model_file.weights import load_weights

__all__ = [
    "FORMATS",
    "TASK",
    "Calibration",
    "ModelFile",
    "ModelInfo",
    "Novelty",
    "check_format",
    "load_model",
    "load_model_with_cfg",
    "load_weights",
    "read_model",
    "save_model",
    "write_model",
]

_HOME = {
    "Calibration": "birder.model_file.calibration",
    "FORMATS": "birder.model_file.formats",
    "ModelFile": "birder.model_file.contents",
    "ModelInfo": "birder.model_file.models",
    "Novelty": "birder.model_file.calibration",
    "TASK": "birder.model_file.contents",
    "check_format": "birder.model_file.formats",
    "load_model": "birder.model_file.models",
    "load_model_with_cfg": "birder.model_file.models",
    "load_weights": "birder.model_file.weights",
    "read_model": "birder.model_file.contents",
    "save_model": "birder.model_file.models",
    "write_model": "birder.model_file.contents",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
