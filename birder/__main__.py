"""``python -m birder`` is the command ``birder``."""

from birder.cli.__main__ import main

main()
