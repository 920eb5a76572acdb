"""Pages for browsers: the demo page."""
