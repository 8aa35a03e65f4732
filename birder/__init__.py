"""birder recognises wildlife, first of all birds, in photographs.

The public names below are imported when they are first used, so that ``import birder`` is quick and needs no torch.
"""

from typing import TYPE_CHECKING

from birder.lazy import lazy

if TYPE_CHECKING:
    from birder.catalogue import list_pretrained_models
    from birder.data.transforms import classification_transform
    from birder.evaluation.classification import evaluate as evaluate_classification
    from birder.hub.load import load_pretrained_model, load_pretrained_model_and_transform
    from birder.inference.options import Options as PredictOptions
    from birder.inference.predictor import Predictor
    from birder.model_file import load_model, load_model_with_cfg, save_model
    from birder.networks.base import create_network, list_networks
    from birder.signature import get_channels_from_signature, get_size_from_signature

__version__ = "1.0.0.dev0"

__all__ = [
    "PredictOptions",
    "Predictor",
    "__version__",
    "classification_transform",
    "create_network",
    "evaluate_classification",
    "get_channels_from_signature",
    "get_size_from_signature",
    "list_networks",
    "list_pretrained_models",
    "load_model",
    "load_model_with_cfg",
    "load_pretrained_model",
    "load_pretrained_model_and_transform",
    "save_model",
]

_HOME = {
    "PredictOptions": "birder.inference.options:Options",
    "Predictor": "birder.inference.predictor",
    "classification_transform": "birder.data.transforms",
    "create_network": "birder.networks",
    "evaluate_classification": "birder.evaluation.classification:evaluate",
    "get_channels_from_signature": "birder.signature",
    "get_size_from_signature": "birder.signature",
    "list_networks": "birder.networks",
    "list_pretrained_models": "birder.catalogue",
    "load_model": "birder.model_file",
    "load_model_with_cfg": "birder.model_file",
    "load_pretrained_model": "birder.hub.load",
    "load_pretrained_model_and_transform": "birder.hub.load",
    "save_model": "birder.model_file",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
