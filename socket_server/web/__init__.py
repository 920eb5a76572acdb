"""What a browser gets: the demo page."""
