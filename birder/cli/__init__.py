"""The command line: one function per command, each a few lines around a public function."""
