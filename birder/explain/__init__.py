"""Where in a picture a network sees what speaks for an answer."""

from birder.explain.explanation import Explanation, Method, explain
from birder.explain.overlays import overlay, seen

__all__ = ["Explanation", "Method", "explain", "overlay", "seen"]
