"""The answer to a CORS preflight request: which methods and headers a page of an allowed origin may use. Pure functions.

Source: Fetch standard, "CORS protocol".
"""

_METHODS = "GET, POST, DELETE, OPTIONS"
_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key")

# Tracing headers (W3C Trace Context, Baggage) that instrumented pages add to every request. The server passes them by.
_TRACING = frozenset({"traceparent", "tracestate", "baggage"})

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_MAX_NAMES = 20
_MAX_NAME_LENGTH = 64


def headers(requested: str) -> list[tuple[str, str]]:
    """Return the preflight's response headers. requested: the content of Access-Control-Request-Headers, "" if absent.

    Beside the headers of the API, requested names of tracing headers and of the form `x-…` are allowed, except those in
    which a proxy reports the client.
    """
    allowed = list(_HEADERS)
    known = {name.lower() for name in allowed}
    for name in requested.lower().split(",")[:_MAX_NAMES]:
        name = name.strip()
        if name not in known and _is_harmless(name):
            allowed.append(name)
            known.add(name)
    return [
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", ", ".join(allowed)),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Access-Control-Request-Headers"),
    ]


def _is_harmless(name: str) -> bool:
    if name in _TRACING:
        return True
    if not name.startswith("x-") or name.startswith(("x-forwarded-", "x-real-ip")):
        return False
    return 2 < len(name) <= _MAX_NAME_LENGTH and _NAME_CHARACTERS.issuperset(name)
