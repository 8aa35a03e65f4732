"""Evaluations as one page that explains itself: ``sources``, ``assembled.build_report``, ``render.render``."""
