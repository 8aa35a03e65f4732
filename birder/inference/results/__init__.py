"""Rows in files: written, read back, summarised, filtered, merged and compared. Nothing here needs torch."""
