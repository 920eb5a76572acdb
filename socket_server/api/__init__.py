"""REST: parse, authorize, call the core, answer. Besides web/, the only code that uses Flask's request."""
