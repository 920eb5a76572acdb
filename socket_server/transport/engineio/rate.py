"""Rate limits: token buckets, for one client and for many by name. No clock of their own: the caller tells the time."""

from collections import OrderedDict


class TokenBucket:
    """Lets `per_second` through on average, `burst` at once."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, count: float = 1) -> bool:
        """Take tokens; return False where there are not enough (they are gone all the same)."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second) - count
        self._at = now
        if self._tokens < 0:
            self._tokens = max(self._tokens, -self._burst)  # what is above the limit is not owed for ever
            return False
        return True

    def wait_s(self, now: float) -> float:
        """Return how long until a token is there; 0 where one is."""
        tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._per_second


class RateByName:
    """A bucket for each of many names (addresses); the ones longest unused are forgotten beyond `most`."""

    def __init__(self, per_second: float, burst: float, most: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, name: str, now: float, count: float = 1) -> bool:
        """Count one, or more, for this name; return False where that is above its rate."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._per_second, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(now, count)

    def wait_s(self, name: str, now: float) -> float:
        """Return how long this name has to wait; 0: not at all."""
        bucket = self._buckets.get(name)
        return 0.0 if bucket is None else bucket.wait_s(now)
