"""The life of a gunicorn worker: start, serve, reload, drain. Several workers may share one port."""
