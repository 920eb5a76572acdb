"""A standalone real-time notification server: POST /broadcast, and every phone and tab of those users shows it at once."""

__version__ = "1.0.0"
