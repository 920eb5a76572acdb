"""A standalone real-time notification server: POST /broadcast delivers to every open connection of the users at once."""

__version__ = "1.0.0"
