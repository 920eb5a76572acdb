"""The documents: links, the public surface that they list, and every code block."""
