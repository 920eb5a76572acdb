"""The life of a gunicorn worker: start, serve, reload, drain. Several workers worker_load one port."""
