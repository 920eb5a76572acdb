"""GET /metrics, for Prometheus; and the count of the requests that Flask answers."""

import time

from flask import Blueprint, Flask, Response, g, request

from socket_server.api.authorization import Authorization
from socket_server.metrics.collection import Collection
from socket_server.metrics.worker import Metrics

UNMATCHED = "unmatched"


def blueprint(collection: Collection, authorization: Authorization, *, needs_key: bool) -> Blueprint:
    """Return the route. needs_key: only callers that may use the API may read it."""
    bp = Blueprint("metrics", __name__)

    @bp.get("/metrics")
    def metrics() -> Response:
        """The figures of all workers of this gunicorn. It asks nothing outside of it, so it answers while Redis is away."""
        from socket_server.metrics import exposition  # loaded at the first scrape only

        if needs_key:
            authorization.require(request.environ)
        body, content_type = exposition.render(collection.collect(), request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    return bp


def count_requests(app: Flask, metrics: Metrics) -> None:
    """Count every request that Flask answers, and how long that takes."""

    @app.before_request
    def start() -> None:
        g.started_at = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = UNMATCHED if request.url_rule is None else _template(request.url_rule.rule)
        seconds = time.perf_counter() - g.get("started_at", time.perf_counter())
        metrics.count_request(route, request.method, response.status_code, seconds)
        return response


def _template(rule: str) -> str:
    """Return a rule of Flask as API documents write it: /users/{id}/notifications."""
    return (
        rule.replace("<any_text:user_id>", "{id}").replace("<path:filename>", "{file}").replace("<", "{").replace(">", "}")
    )
