"""gunicorn's options: which of them take effect here. All others are refused by name if they are set.

The worker has an HTTP server and logging of its own, so much of what gunicorn can be told would be ignored silently.
tests/unit/workers/test_options.py checks that every option of the installed gunicorn is in one of the tables.
"""

from typing import Any

from gunicorn.config import Config

# They work as gunicorn documents them.
EFFECTIVE = frozenset(
    {
        "config",
        "wsgi_app",
        "bind",
        "backlog",
        "workers",
        "worker_class",  # serve.py refuses any but ours
        "worker_connections",
        "timeout",
        "graceful_timeout",  # serve.py refuses one that is shorter than the drain
        "keepalive",
        "reload",
        "reload_engine",
        "reload_extra_files",
        "spew",
        "check_config",
        "print_config",
        "preload_app",  # serve.py refuses it
        "chdir",
        "daemon",
        "raw_env",
        "pidfile",
        "worker_tmp_dir",
        "user",
        "group",
        "umask",
        "initgroups",
        "accesslog",  # turns the access log on; its destination is that of the log
        "access_log_format",
        "capture_output",
        "enable_stdio_inheritance",
        "proc_name",
        "default_proc_name",
        "pythonpath",
        "proxy_protocol",
        "proxy_allow_ips",
        "keyfile",
        "certfile",
        "cert_reqs",
        "ca_certs",
        "ciphers",
        "control_socket_disable",
        "logconfig_dict",  # ours
    }
)

# They can be set in a file of gunicorn's settings only, which would replace ours.
FILE_ONLY = frozenset(
    {
        *("on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int"),
        *("worker_abort", "pre_exec", "pre_request", "post_request", "child_exit", "worker_exit", "nworkers_changed"),
        *("on_exit", "ssl_context", "on_dirty_starting", "dirty_post_fork", "dirty_worker_init", "dirty_worker_exit"),
        *("tmp_upload_dir", "secure_scheme_headers", "logger_class"),
    }
)

_FIXED_LIMITS = "the limits of a request's head are fixed (32 KB, 100 headers)"
_RESTARTS = "a worker that restarts closes the connections of all its clients"
_STRICT = "requests are parsed strictly"
_LOG = "LOG_LEVEL and LOG_FORMAT decide what is logged, to standard error"
_HTTP_1 = "the server speaks HTTP/1.1; let a proxy speak HTTP/2"
_ASGI = "the app is WSGI"
_DIRTY = "the app has no work for gunicorn's dirty workers"
_STATSD = "gunicorn's StatsD metrics are not written; scrape /metrics"
_CONTROL = "gunicorn's control socket is switched off"
_UWSGI = "the server speaks HTTP only"
_PASTE = "the app is not a Paste app"

# Option -> why it has no effect, or what to use instead.
REFUSED = {
    "reuse_port": "each worker would have a backlog of its own, which a reload would reset",
    "threads": "requests run in greenlets, not in threads",
    "max_requests": _RESTARTS,
    "max_requests_jitter": _RESTARTS,
    "limit_request_line": _FIXED_LIMITS,
    "limit_request_fields": _FIXED_LIMITS,
    "limit_request_field_size": _FIXED_LIMITS,
    "sendfile": "no files are sent",
    "forwarded_allow_ips": "set TRUSTED_PROXIES",
    "forwarder_headers": "set TRUSTED_PROXIES",
    "header_map": "headers with an underscore are always dropped",
    "root_path": "set BASE_PATH",
    "protocol": _UWSGI,
    "uwsgi_allow_ips": _UWSGI,
    "ssl_version": "TLS 1.2 and 1.3 are spoken",
    "suppress_ragged_eofs": "a client that ends without a TLS close is always served",
    "do_handshake_on_connect": "the TLS handshake begins with the client's first bytes",
    "errorlog": _LOG,
    "loglevel": _LOG,
    "logconfig": _LOG,
    "logconfig_json": _LOG,
    "syslog": _LOG,
    "syslog_addr": _LOG,
    "syslog_prefix": _LOG,
    "syslog_facility": _LOG,
    "disable_redirect_access_to_syslog": _LOG,
    "statsd_host": _STATSD,
    "statsd_prefix": _STATSD,
    "dogstatsd_tags": _STATSD,
    "enable_backlog_metric": _STATSD,
    "control_socket": _CONTROL,
    "control_socket_mode": _CONTROL,
    "paste": _PASTE,
    "raw_paste_global_conf": _PASTE,
    "permit_obsolete_folding": _STRICT,
    "strip_header_spaces": _STRICT,
    "permit_unconventional_http_method": _STRICT,
    "permit_unconventional_http_version": _STRICT,
    "casefold_http_method": _STRICT,
    "http_parser": _STRICT,
    "http_protocols": _HTTP_1,
    "http2_cleartext": _HTTP_1,
    "http2_max_concurrent_streams": _HTTP_1,
    "http2_initial_window_size": _HTTP_1,
    "http2_max_frame_size": _HTTP_1,
    "http2_max_header_list_size": _HTTP_1,
    "asgi_loop": _ASGI,
    "asgi_lifespan": _ASGI,
    "asgi_disconnect_grace_period": _ASGI,
    "websocket_max_message_size": "set MAX_MESSAGE_BYTES",
    "dirty_apps": _DIRTY,
    "dirty_workers": _DIRTY,
    "dirty_timeout": _DIRTY,
    "dirty_threads": _DIRTY,
    "dirty_graceful_timeout": _DIRTY,
}


def problems_with(cfg: Any) -> list[str]:
    """Return a problem, with its remedy, for each option that is set and has no effect. cfg: gunicorn's Config."""
    defaults = Config()
    return [
        f"gunicorn's option {_name(cfg.settings[option])} has no effect here: {reason}; leave it out"
        for option, reason in REFUSED.items()
        if cfg.settings[option].get() != defaults.settings[option].get()
    ]


def _name(setting: Any) -> str:
    return "/".join(setting.cli) or str(setting.name)
