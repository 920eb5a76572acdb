"""The store in Redis (6.2 or later, or Valkey): any number of server processes share it.

Every change is one script, which Redis runs as one step: it gives offsets, settles idempotency keys, stores, and writes the
log that all nodes read, in the same order. Durable as far as Redis is: `appendonly yes` keeps what was answered.

Under one prefix, whose hash tag keeps all of it together:

    head         the newest offset given
    began        where the store's life began; after a flush it begins anew
    log          a stream of all notifications, as `<offset>-0` with `users` (a MessagePack array), `body` and `before` (the
                 offset before it, by which a reader sees that nothing is missing): the last two minutes, forgotten users
                 included
    body:<n>     the notification with offset n, once for all its users: how many lists name it (8 digits), then its bytes
    user:<id>    a user's list, oldest first: offsets, as `<n>`, or `<n>:<expires>` where its own ttl ends it before
                 retention does; in front of them `d<n>` where retention by count, or forgetting, has dropped up to n
    key:<key>    an idempotency key: offset, digest, answer

A list and not a sorted set: offsets arrive in order and are read from the end, a push costs the same however long the list
is, and with 1,000 entries it takes a tenth of the memory. Everything but head, began and the log expires by itself.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from socket_server import log
from socket_server.errors import ConfigError
from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MICROSECONDS,
    Appended,
    Clock,
    Entry,
    InboxUnavailable,
    Page,
    Reach,
    Record,
    Repeat,
    Retention,
    Stored,
)
from socket_server.inbox.redis_line import Line

_log = log.logger("Server")

PREFIX = "{socket-server}:"
HEAD = PREFIX + "head"
LOG = PREFIX + "log"

# How far back the log goes: a node that was away for longer has its clients recover from their inboxes.
LOG_S = 120
LOG_LENGTH = 100_000  # notifications

CONNECT_TIMEOUT_S = 3.0
TIMEOUT_S = 5.0  # for an answer
_HEALTH_CHECK_S = 30  # a connection that has been idle for so long is tried before it is trusted
_READERS = 8  # calls at once; each takes a connection
_WRITERS = 4  # apart from those, so that no number of recoveries holds up a broadcast

_OTHERS = 200  # that one append hands out: what a node that was away is behind must hold up neither Redis nor the node

_OLDEST_VERSION = (6, 2)  # LPOP with a count, XADD with MINID
# Offsets are doubles in Lua: exact up to here, which is the year 2255.
_MAX_OFFSET = 2**53 - 1

_encode_users = msgspec.msgpack.Encoder().encode
_decode_users = msgspec.msgpack.Decoder(tuple[str, ...]).decode

# Every script begins with it. `lower`: the head as this process knows it. Redis holds less where it was flushed, is another
# one, or is a replica that was promoted before it had everything: then what lies before is not all there, and life begins
# anew. It may also be that its clock goes slower than that of the one before; offsets must grow all the same.
_PRELUDE = """
local prefix, now, lower, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local head = tonumber(redis.call('GET', prefix .. 'head'))
local began = tonumber(redis.call('GET', prefix .. 'began'))
local anew = not head or not began or head < lower
if anew then
  if not head or not began then
    lower = math.max(now, lower, head or 0)
  else
    lower = lower + 1  -- others may have stored before it since: who got to it has not got all
  end
  began, head = lower, lower
end

local function text(offset)  -- tostring() would write it with an exponent
  return string.format('%.0f', offset)
end

local function milliseconds(microseconds)  -- a little later: the scripts decide, this clears up
  return text(math.ceil(microseconds / 1000) + 1000)
end

-- Return a list's element as offset, own end, whether it is the mark of what was dropped.
local function parse(element)
  if string.byte(element) == 100 then
    return tonumber(string.sub(element, 2)), nil, true
  end
  local colon = string.find(element, ':', 1, true)
  if colon then
    return tonumber(string.sub(element, 1, colon - 1)), tonumber(string.sub(element, colon + 1)), false
  end
  return tonumber(element), nil, false
end

-- Where Redis is full, read-only, or may not write for another reason, a script's first write fails, with nothing done, if
-- it is one that takes memory, as this is. What follows a first write is never refused.
local function note_head()
  redis.call('SET', prefix .. 'head', text(head))
  if anew then
    redis.call('SET', prefix .. 'began', text(began))
    anew = false
  end
end

-- gone: offset -> off how many lists it was taken. What is on none any more is deleted.
local function unlist(gone)
  for offset, times in pairs(gone) do
    local key = prefix .. 'body:' .. text(offset)
    local lists = tonumber(redis.call('GETRANGE', key, 0, 7))
    if lists and lists <= times then
      redis.call('DEL', key)
    elseif lists then
      redis.call('SETRANGE', key, 0, string.format('%08d', lists - times))
    end
  end
end
"""

# Six arguments an entry, from the twelfth on: users, body, own ttl in microseconds ('': none), the idempotency key's key
# ('' without one), digest, answer. Without entries it only shows that it could write. The tenth argument: what begins the
# keys of the hashes, one a user, that hold who is connected; '' where nothing is to be counted. Returns the head, the head
# before, whether nothing was stored because there is more of the log than the eleventh argument, the log after the ninth
# argument (none where that is ''), then for each entry an array: its offset, its users and their connections; or, with four
# elements, the offset, digest and answer that the idempotency key holds, and ''.
_APPEND = (
    _PRELUDE
    + """
local max_per_user, claimed_for = tonumber(ARGV[5]), tonumber(ARGV[6])
local log_length, log_span = ARGV[7], tonumber(ARGV[8])
local log = prefix .. 'log'
if anew and redis.call('EXISTS', log) == 1 then
  -- The head was lost and the log was not: an entry there must be newer than all before it.
  local facts = redis.call('XINFO', 'STREAM', log)
  for at = 1, #facts, 2 do
    if facts[at] == 'last-generated-id' then
      head = math.max(head, tonumber(string.match(facts[at + 1], '^%d+')))
      began = head
    end
  end
end

local after, others, connections, most = tonumber(ARGV[9]), {}, ARGV[10], tonumber(ARGV[11])
if after and after < head then
  others = redis.call('XRANGE', log, '(' .. text(after) .. '-0', '+', 'COUNT', most)
  if #others == most then
    return {text(head), string.match(others[most][1], '^%d+'), 1, others}
  end
end

local outcomes, gone = {'', text(head), 0, others}, {}

-- Return how many of these users are connected, and by how many connections.
local function reach(users)
  local reached, sockets = 0, 0
  if connections ~= '' then
    for _, user in ipairs(users) do
      local count = redis.call('HLEN', connections .. user)
      if count > 0 then
        reached, sockets = reached + 1, sockets + count
      end
    end
  end
  return reached, sockets
end

local function push(user, element, expiry)
  local key = prefix .. 'user:' .. user
  local length = redis.call('RPUSH', key, element)
  if length > max_per_user then
    local dropped
    for _, each in ipairs(redis.call('LPOP', key, length - max_per_user)) do
      local offset, _, mark = parse(each)
      dropped = offset
      if not mark then
        gone[offset] = (gone[offset] or 0) + 1
      end
    end
    redis.call('LPUSH', key, 'd' .. text(dropped))
  end
  redis.call('PEXPIRE', key, expiry)
end

for at = 12, #ARGV, 6 do
  local users, body, own_ttl, claim = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local first = claim ~= '' and redis.call('HMGET', claim, 'offset', 'digest', 'answer')
  if first and first[1] and tonumber(first[1]) > now - claimed_for then
    first[4] = ''
    outcomes[#outcomes + 1] = first
  else
    local before = text(head)
    head = math.max(now, head + 1)
    local offset, list = text(head), cmsgpack.unpack(users)
    local reached, sockets = reach(list)
    outcomes[#outcomes + 1] = {offset, reached, sockets}
    if claim ~= '' then
      local answer = ARGV[at + 5]
      if connections ~= '' then
        answer = string.format('[%d,%d]', reached, sockets)
      end
      redis.call('HSET', claim, 'offset', offset, 'digest', ARGV[at + 4], 'answer', answer)
      redis.call('PEXPIRE', claim, milliseconds(head - now + claimed_for))
    end
    if #list > 0 and own_ttl ~= 0 then
      local element, expiry = offset, milliseconds(head - now + ttl)
      local body_expiry = expiry
      if own_ttl then
        element = offset .. ':' .. text(now + own_ttl)
        body_expiry = milliseconds(own_ttl)
      end
      redis.call('SET', prefix .. 'body:' .. offset, string.format('%08d', #list) .. body, 'PX', body_expiry)
      for _, user in ipairs(list) do
        push(user, element, expiry)
      end
    end
    redis.call('XADD', log, 'MAXLEN', '~', log_length, offset .. '-0', 'users', users, 'body', body, 'before', before)
  end
end
unlist(gone)
note_head()
if #outcomes > 4 then
  redis.call('XTRIM', log, 'MINID', '~', text(math.max(0, head - log_span)))
end
outcomes[1] = text(head)
return outcomes
"""
)

# Reads a user's list from its end, as far back as was asked for, and only the bodies that are returned. Returns the head,
# whether that is only where life would begin now, the oldest offset after which nothing is missing, the total, whether a
# body was missing, then offset and body in turn.
_SINCE = (
    _PRELUDE
    + """
local key, after, last = prefix .. 'user:' .. ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local limit, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local whole_after = math.max(began, now - ttl)
local first = math.max(after + 1, now - ttl)
local found = {}  -- newest first
local to, size, ended = -1, 32, false
while not ended do
  local elements = redis.call('LRANGE', key, to - size + 1, to)
  for at = #elements, 1, -1 do
    local offset, expires, mark = parse(elements[at])
    if mark then
      whole_after = math.max(whole_after, offset)
    elseif offset < first then
      ended = true
      break
    elseif offset <= last and (not expires or expires > now) then
      found[#found + 1] = offset
    end
  end
  ended = ended or #elements < size
  to, size = to - size, 256
end

local page, bytes, total, missing = {}, 0, #found, 0
for at = #found, 1, -1 do
  if #page >= 2 * limit then
    break
  end
  local body = prefix .. 'body:' .. text(found[at])
  local length = redis.call('STRLEN', body) - 8
  if length < 0 then
    total, missing = total - 1, 1  -- evicted, which is why maxmemory-policy should be noeviction
  else
    bytes = bytes + length
    if #page > 0 and bytes > max_bytes then
      break
    end
    page[#page + 1] = text(found[at])
    page[#page + 1] = redis.call('GETRANGE', body, 8, -1)
  end
end
return {text(head), anew and 1 or 0, text(whole_after), total, missing, page}
"""
)

# Returns how many of the user's notifications were still to be had.
_FORGET = (
    _PRELUDE
    + """
local key = prefix .. 'user:' .. ARGV[5]
note_head()
local gone, count = {}, 0
for _, element in ipairs(redis.call('LRANGE', key, 0, -1)) do
  local offset, expires, mark = parse(element)
  if not mark then
    gone[offset] = 1
    if offset >= now - ttl and (not expires or expires > now) then
      count = count + 1
    end
  end
end
unlist(gone)
redis.call('DEL', key)
redis.call('RPUSH', key, 'd' .. text(head))
redis.call('PEXPIRE', key, milliseconds(head - now + ttl))
return {text(head), count}
"""
)

_AMEND = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'answer', ARGV[1])
end
"""


class RedisInbox:
    """An Inbox in Redis. For threads, or greenlets where the sockets are gevent's."""

    def __init__(self, url: str, retention: Retention, clock: Clock | None = None, counted: str = "") -> None:
        """url: redis://, rediss:// or unix:// as redis-py reads them, or
        redis+sentinel://[:password@]host1:26379,host2:26379/<service>[/<db>]; clock: instead of Redis's own, for tests;
        counted: what begins the keys of the hashes, one a user, that hold the connections of all nodes, for Appended.reach.

        Connects to nothing yet. Raises ConfigError for a URL that cannot be read.
        """
        self._retention = retention
        self._ttl = round(retention.ttl_s * MICROSECONDS)
        self._clock = clock
        self._counted = counted
        self._client, self._where = connect(url, _READERS + _WRITERS)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._line = Line(self._client)  # of the appends
        self._append = self._client.register_script(_APPEND)
        self._since = self._client.register_script(_SINCE)
        self._forget = self._client.register_script(_FORGET)
        self._amend = self._client.register_script(_AMEND)
        self._reading = threading.BoundedSemaphore(_READERS)
        self._writing = threading.BoundedSemaphore(_WRITERS)
        self._lock = threading.Lock()
        self._head = 0  # the newest offset that this process has heard of

    @property
    def place(self) -> str:
        return self._where

    def open(self) -> int:
        with self._asking(self._writing):
            self._look_around()
            return self._try()

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        if not entries and after is None:
            return Appended(())
        if after is not None:
            self._heard(after)
        with self._asking(self._writing):
            arguments = self._append_arguments(entries, after)
            head, before, more, others, *outcomes = self._line.run(self._append, *arguments)
            self._heard(head)
        records = tuple(record(entry_id, fields) for entry_id, fields in others)
        return Appended(
            tuple(_outcome(each) for each in outcomes),
            records,
            after is None or _joined(after, records, int(before)),
            tuple(_reach(each) for each in outcomes) if self._counted else (),
            bool(more),
        )

    def amend(self, key: str, answer: bytes) -> None:
        with self._asking(self._writing):
            self._amend(keys=[_claim_key(key)], args=[answer])

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        start = min(max(after, 0), _MAX_OFFSET)
        end = _MAX_OFFSET if until is None else min(until, _MAX_OFFSET)
        with self._asking(self._reading):
            head, anew, whole_after, total, missing, found = self._since(
                args=[*self._arguments(), _bytes(user_id), start, end, limit, max_bytes]
            )
            if not anew:
                self._heard(head)
            complete = not missing and int(whole_after) <= after <= int(head)
        offsets, bodies = found[::2], found[1::2]
        page = tuple(Stored(int(offset), body) for offset, body in zip(offsets, bodies, strict=True))
        return Page(page, total, complete)

    def forget(self, user_id: str) -> int:
        with self._asking(self._writing):
            head, count = self._forget(args=[*self._arguments(), _bytes(user_id)])
            self._heard(head)
        return int(count)

    def check(self) -> None:
        with self._asking(self._writing):
            self._try()

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    # What scripts take and give

    def _arguments(self) -> list[str | bytes | int]:
        return [PREFIX, "" if self._clock is None else self._clock(), self._head, self._ttl]

    def _append_arguments(self, entries: Sequence[Entry], after: int | None) -> list[str | bytes | int]:
        arguments = self._arguments()
        arguments += [self._retention.max_per_user, IDEMPOTENCY_S * MICROSECONDS, LOG_LENGTH, LOG_S * MICROSECONDS]
        arguments += ["" if after is None else after, self._counted, _OTHERS]
        for entry in entries:
            own_ttl: int | str = ""
            if entry.ttl_s is not None and entry.ttl_s < self._retention.ttl_s:
                own_ttl = round(entry.ttl_s * MICROSECONDS)
            arguments += [_encode_users(entry.user_ids), entry.notification, own_ttl]
            claim = entry.claim
            arguments += ["", "", ""] if claim is None else [_claim_key(claim.key), claim.digest, claim.answer]
        return arguments

    def _try(self) -> int:
        """Append nothing, which writes all the same; return the head."""
        head, *_ = self._append(args=self._append_arguments((), None))
        self._heard(head)
        return int(head)

    def _heard(self, head: bytes | int) -> None:
        with self._lock:
            self._head = max(self._head, int(head))

    # What can go wrong

    @contextmanager
    def _asking(self, slots: threading.BoundedSemaphore) -> Iterator[None]:
        """Take one of the calls at once. Raises InboxUnavailable for whatever Redis, or the way to it, says meanwhile."""
        if not slots.acquire(timeout=TIMEOUT_S):
            raise InboxUnavailable(f"the inbox at {self._where} does not keep up: look at its load (SLOWLOG, CPU)")
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise InboxUnavailable(f"the inbox at {self._where} {explain(error, self._password)}") from None
        finally:
            slots.release()

    def _look_around(self) -> None:
        """Refuse a Redis that is too old, and warn of one that may throw away what it is to keep."""
        try:
            facts: Mapping[str, Any] = self._client.info()
        except redis.ResponseError:
            return  # this user may not ask
        version = str(facts.get("redis_version", ""))
        numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
        if len(numbers) == 2 and numbers < _OLDEST_VERSION:
            raise InboxUnavailable(f"the inbox at {self._where} is Redis {version}: use 6.2 or later")
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory") and policy != "noeviction":
            _log.warning(
                "the inbox at %s may throw away what users missed: set its maxmemory-policy to noeviction (it is %s)",
                self._where,
                policy,
            )


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a stream's entry, which Redis sends as names and texts in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def offset_of(entry_id: bytes) -> int:
    """Return the offset that an entry of the log stands for."""
    return int(entry_id[:-2])


def record(entry_id: bytes, flat: Sequence[bytes]) -> Record:
    """Return a notification as an entry of the log holds it."""
    fields = pairs(flat)
    return Record(offset_of(entry_id), _decode_users(fields[b"users"]), fields[b"body"], int(fields.get(b"before", 0)))


def _joined(after: int, records: Sequence[Record], before: int) -> bool:
    """Say whether records are all that lies between an offset and the one before the next entry."""
    last = after
    for each in records:
        if each.before > last:
            return False
        last = each.offset
    return before <= last


def connect(url: str, connections: int) -> tuple["redis.Redis", str]:
    """Return a client of at most so many connections, none made yet, and a name that may be shown. Raises ConfigError.

    It tries nothing twice by itself: an append whose answer was lost may have been done.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": _HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 0),
        # RESP3 would give nothing here, and redis-py makes its connections slower then: it asks for push messages too.
        "protocol": 2,
        "max_connections": connections,
    }
    try:
        if url.startswith("redis+sentinel://"):
            return _connect_by_sentinel(url, options)
        if url.startswith("unix://"):
            del options["socket_keepalive"]
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError, redis.RedisError):
        # What the library says may quote the password.
        raise ConfigError(
            [
                "the Redis URL cannot be read: use redis://:password@host:6379/0, rediss://…, unix:///path/to/socket or "
                "redis+sentinel://:password@host1:26379,host2:26379/service/0, with the password percent-encoded"
            ]
        ) from None
    facts = client.connection_pool.connection_kwargs
    place = facts["path"] if "path" in facts else f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
    return client, f"{url.partition('://')[0]}://{place}"


def _connect_by_sentinel(url: str, options: dict[str, Any]) -> tuple["redis.Redis", str]:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(each) for each in credentials.partition(":"))
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts or parts.query or parts.fragment:
        raise ValueError("not a Sentinel URL")
    addresses = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        addresses.append((address.hostname or "localhost", address.port or 26_379))
    # The Sentinels themselves are asked without a password, as they are usually run.
    make: Any = Sentinel  # which carries no types
    client: redis.Redis = make(addresses, sentinel_kwargs=options).master_for(
        unquote(service),
        redis_class=redis.Redis,
        db=int(db or 0),
        username=username or None,
        password=password or None,
        **options,
    )
    return client, f"redis+sentinel://{hosts}/{service}"


# Redis's error codes and what to do. A script's error has its code within the text in Redis 6, and in front in Redis 7;
# redis-py makes classes of some, and takes the code away.
_ADVICE: Sequence[tuple[str, type[Exception] | None, str]] = (
    ("OOM ", redis.exceptions.OutOfMemoryError, "is full: raise its maxmemory, or lower INBOX_TTL or INBOX_MAX_PER_USER"),
    ("READONLY ", redis.exceptions.ReadOnlyError, "is a read-only replica: name the primary, or use redis+sentinel://"),
    ("LOADING ", redis.exceptions.BusyLoadingError, "is still loading its data: wait until it has"),
    ("MISCONF ", None, "cannot save to its disk (MISCONF) and takes no writes: make room there; its log says more"),
    ("NOREPLICAS ", None, "has fewer good replicas than min-replicas-to-write: bring them back, or lower that"),
    ("MASTERDOWN ", redis.exceptions.MasterDownError, "is a replica that has lost its primary: bring that back"),
    ("MOVED ", redis.exceptions.MovedError, "is part of a Redis Cluster: use a Redis that is none"),
    ("CLUSTERDOWN ", redis.exceptions.ClusterDownError, "is part of a Redis Cluster: use a Redis that is none"),
    ("BUSY ", None, "is busy with another program's script: end that (SCRIPT KILL)"),
    ("NOAUTH ", redis.AuthenticationError, "wants another user or password: put the right ones into its URL"),
    ("WRONGPASS ", None, "wants another user or password: put the right ones into its URL"),
    ("NOPERM ", redis.exceptions.NoPermissionError, f"does not let this user do what it must: allow ~{PREFIX}* +@all"),
    ("WRONGTYPE ", None, f"holds another program's data under {PREFIX}*: use another database number, redis://host/<n>"),
)


def explain(error: Exception, password: str = "") -> str:
    """Return what is the matter with Redis and what to do, without the password."""
    said = str(error)
    for code, kind, advice in _ADVICE:
        if (kind is not None and isinstance(error, kind)) or said.startswith(code) or f"-{code}" in said:
            return advice
    if password:
        said = said.replace(password, "***")
    match error:
        case MasterNotFoundError():
            return "has no primary that the Sentinels know of: look at them (SENTINEL MASTERS) and at the service's name"
        case redis.exceptions.MaxConnectionsError():
            return "does not keep up: look at its load (SLOWLOG, CPU)"
        case redis.TimeoutError() | TimeoutError():
            return f"has not answered for {TIMEOUT_S:g} s: see that it runs, and that nothing on the way drops packets"
        case redis.ConnectionError() | OSError():
            return f"cannot be reached: start it, or mend its URL ({said})"
    return f"refuses what it is asked: {said}"


def _outcome(outcome: Sequence[Any]) -> int | Repeat:
    if len(outcome) == 3:
        return int(outcome[0])
    offset, digest, answer, _ = outcome
    return Repeat(int(offset), digest, answer)


def _reach(outcome: Sequence[Any]) -> Reach:
    return Reach(outcome[1], outcome[2]) if len(outcome) == 3 else Reach.decode(outcome[2])


def _claim_key(key: str) -> bytes:
    return _bytes(f"{PREFIX}key:{key}")


def _bytes(text: str) -> bytes:
    # A lone surrogate is in no stored name; looking for it must find nothing, and not fail.
    return text.encode("utf-8", "surrogatepass")
