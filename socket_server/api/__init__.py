"""REST: parse, check, call the core, answer. The only code besides web/ that knows Flask's request."""
