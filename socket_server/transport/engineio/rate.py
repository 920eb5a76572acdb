"""Rate limits as token buckets: for one client, and for many by name. The caller passes the time, in seconds."""

from collections import OrderedDict


class TokenBucket:
    """Passes `per_second` on average and `burst` at once."""

    __slots__ = ("_burst", "_per_second", "_tokens", "_updated_at")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._updated_at = now

    def take(self, now: float, count: float = 1) -> bool:
        """Take tokens, and return whether there were enough. They are taken in either case."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated_at) * self._per_second) - count
        self._updated_at = now
        if self._tokens < 0:
            self._tokens = max(self._tokens, -self._burst)  # the debt is bounded: the wait is at most two bursts long
            return False
        return True

    def wait_s(self, now: float) -> float:
        """Return the seconds until a token is available; 0 if one is."""
        tokens = min(self._burst, self._tokens + (now - self._updated_at) * self._per_second)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._per_second


class RateByName:
    """A token bucket for each of many names, such as addresses. Beyond `most` names, the least recently used go."""

    def __init__(self, per_second: float, burst: float, most: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, name: str, now: float, count: float = 1) -> bool:
        """Take tokens of this name, and return whether there were enough."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._per_second, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(now, count)

    def wait_s(self, name: str, now: float) -> float:
        """Return the seconds until this name has a token; 0 if it has one."""
        bucket = self._buckets.get(name)
        return 0.0 if bucket is None else bucket.wait_s(now)
