"""What Redis does in one step for the inbox, as Lua scripts; what they are given and what they leave there.

Under one prefix, whose hash tag keeps all of it together:

    head         the newest offset given
    began        where the store's life began; after a flush it begins anew
    log          a stream of all that was stored together, as `<its last offset>-0`: `entries`, `offsets` (an array in
                 MessagePack, 0 for a repeat), `before` (the offset before them, by which a reader sees that nothing is
                 missing) and `logged`; the last two minutes, forgotten users included
    logged       how many bytes of entries were ever written there
    user:<id>    a user's list, oldest first: offsets, as `<n>`, or `<n>:<expires>` where its own ttl ends it before
                 retention does; behind it a blank and the notification, where it is a small one for this user alone; in
                 front of them `d<n>` where retention by count, or forgetting, has dropped up to n
    body:<n>     any other notification, once for all its users: how many lists name it (8 digits), then its bytes
    key:<key>    an idempotency key: offset, digest, answer

A list and not a sorted set: offsets arrive in order and are read from the end, a push costs the same however long the list
is, and with 1,000 entries it takes a tenth of the memory. Everything but head, began and the log expires by itself.
"""

import struct
from collections.abc import Iterable, Sequence

import msgspec

from socket_server.inbox.inbox import MICROSECONDS, Claim, Entry, Record

PREFIX = "{socket-server}:"
HEAD = PREFIX + "head"
LOG = PREFIX + "log"

# A notification of up to so many bytes for one user lies in that user's list: a key less to write, and to keep.
_IN_LIST_BYTES = 1_024

_LONG = struct.Struct(">BI")  # the head of an array, or of a string, in MessagePack


class _Logged(msgspec.Struct, array_like=True):
    """An entry of APPEND's, as far as it is to be delivered."""

    user_ids: tuple[str, ...]
    notification: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode_entries = msgspec.msgpack.Decoder(list[_Logged]).decode
_decode_offsets = msgspec.msgpack.Decoder(list[int]).decode

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
  return string.format('%d', offset)
end

local function milliseconds(microseconds)  -- a little later: the scripts decide, this clears up
  return math.ceil(microseconds / 1000) + 1000
end

-- Return a list's element as offset, own end, whether it is the mark of what was dropped, and where a notification begins.
local function parse(element)
  if string.byte(element) == 100 then
    return tonumber(string.sub(element, 2)), nil, true
  end
  local _, to, offset, expires = string.find(element, '^(%d+):?(%d*)')
  return tonumber(offset), tonumber(expires), false, to < #element and to + 2
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

-- gone: offset -> off how many lists it was taken, of those with a body. What is on none any more is deleted.
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

# The last two arguments are MessagePack, since Redis and its client go through every argument by itself, and the log
# takes the entries as they are: an array of entries (users, body, and its own ttl in microseconds where it has one); an
# array of what each claims (nil, or an idempotency key's key, digest and answer), as far as any does. Without them it
# only shows that it could write. The tenth argument: what begins the keys of the hashes, one a user, that hold who is
# connected; '' where nothing is to be counted. Returns the head, the head before, whether nothing was stored because
# there is more of the log than the eleventh argument, the log after the ninth argument (none where that is ''), then for
# each entry an array: its offset, its users and their connections; or, with four elements, the offset, digest and answer
# that the idempotency key holds, and ''.
APPEND = (
    _PRELUDE
    + """
local max_per_user, claimed_for, in_list_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), IN_LIST_BYTES
local log_bytes, log_span = tonumber(ARGV[7]), tonumber(ARGV[8])
local log, log_look = prefix .. 'log', log_bytes / 100
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

-- So many milliseconds a list has to live, and some more: then not every push need say so.
local function push(user, element, lifetime)
  local key = prefix .. 'user:' .. user
  local length = redis.call('RPUSH', key, element)
  if length > max_per_user then
    local dropped
    for _, each in ipairs(redis.call('LPOP', key, length - max_per_user)) do
      local offset, _, mark, inside = parse(each)
      dropped = offset
      if not mark and not inside then
        gone[offset] = (gone[offset] or 0) + 1
      end
    end
    redis.call('LPUSH', key, 'd' .. text(dropped))
  end
  if redis.call('PTTL', key) < lifetime then
    redis.call('PEXPIRE', key, text(lifetime + ttl / 16000))
  end
end

local entries, claims, offsets, before = {}, {}, {}, head
if ARGV[12] then
  entries, claims = cmsgpack.unpack(ARGV[12]), cmsgpack.unpack(ARGV[13])
end
for at, entry in ipairs(entries) do
  local users, body, own_ttl, claim = entry[1], entry[2], entry[3], claims[at]
  local key = claim and claim[1]
  local first = key and redis.call('HMGET', key, 'offset', 'digest', 'answer')
  if first and first[1] and tonumber(first[1]) > now - claimed_for then
    first[4] = ''
    outcomes[#outcomes + 1], offsets[at] = first, 0
  else
    head = math.max(now, head + 1)
    local offset = text(head)
    local reached, sockets = reach(users)
    outcomes[#outcomes + 1], offsets[at] = {head, reached, sockets}, head
    if key then
      local answer = claim[3]
      if connections ~= '' then
        answer = string.format('[%d,%d]', reached, sockets)
      end
      redis.call('HSET', key, 'offset', offset, 'digest', claim[2], 'answer', answer)
      redis.call('PEXPIRE', key, text(milliseconds(head - now + claimed_for)))
    end
    if #users > 0 and own_ttl ~= 0 then
      local element, lifetime, body_lifetime = offset, milliseconds(head - now + ttl)
      if own_ttl then
        element, body_lifetime = offset .. ':' .. text(now + own_ttl), milliseconds(own_ttl)
      end
      if #users == 1 and #body <= in_list_bytes then
        element = element .. ' ' .. body
      else
        local counted = string.format('%08d', #users) .. body
        redis.call('SET', prefix .. 'body:' .. offset, counted, 'PX', text(body_lifetime or lifetime))
      end
      for _, user in ipairs(users) do
        push(user, element, lifetime)
      end
    end
  end
end
if head > before then
  local size = #ARGV[12]
  local logged = redis.call('INCRBY', prefix .. 'logged', size)
  redis.call(
    'XADD', log, 'MINID', '~', text(math.max(0, head - log_span)), text(head) .. '-0',
    'logged', text(logged), 'before', text(before), 'offsets', cmsgpack.pack(offsets), 'entries', ARGV[12]
  )
  if logged % log_look < size then
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if logged - tonumber(oldest[2][2]) > log_bytes then
      redis.call('XTRIM', log, 'MAXLEN', '~', math.floor(redis.call('XLEN', log) * 0.9))
    end
  end
end
unlist(gone)
note_head()
outcomes[1] = text(head)
return outcomes
"""
).replace("IN_LIST_BYTES", str(_IN_LIST_BYTES))

# Reads a user's list from its end, as far back as was asked for, and only the bodies that are returned. Returns the head,
# whether that is only where life would begin now, the oldest offset after which nothing is missing, the total, whether a
# body was missing, then offset and body in turn.
SINCE = (
    _PRELUDE
    + """
local key, after, last = prefix .. 'user:' .. ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local limit, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local whole_after = math.max(began, now - ttl)
local first = math.max(after + 1, now - ttl)
local found, inside = {}, {}  -- newest first: offsets, and the elements that have the notification in them
local to, size, ended = -1, 32, false
while not ended do
  local elements = redis.call('LRANGE', key, to - size + 1, to)
  for at = #elements, 1, -1 do
    local offset, expires, mark, begins = parse(elements[at])
    if mark then
      whole_after = math.max(whole_after, offset)
    elseif offset < first then
      ended = true
      break
    elseif offset <= last and (not expires or expires > now) then
      found[#found + 1] = offset
      inside[#found] = begins and elements[at] or false
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
  local key, body = prefix .. 'body:' .. text(found[at]), inside[at]
  local length
  if body then
    body = string.sub(body, string.find(body, ' ', 1, true) + 1)
    length = #body
  else
    length = redis.call('STRLEN', key) - 8
  end
  if length < 0 then
    total, missing = total - 1, 1  -- evicted, which is why maxmemory-policy should be noeviction
  else
    bytes = bytes + length
    if #page > 0 and bytes > max_bytes then
      break
    end
    page[#page + 1] = text(found[at])
    page[#page + 1] = body or redis.call('GETRANGE', key, 8, -1)
  end
end
return {text(head), anew and 1 or 0, text(whole_after), total, missing, page}
"""
)

# Returns how many of the user's notifications were still to be had.
FORGET = (
    _PRELUDE
    + """
local key = prefix .. 'user:' .. ARGV[5]
note_head()
local gone, count = {}, 0
for _, element in ipairs(redis.call('LRANGE', key, 0, -1)) do
  local offset, expires, mark, inside = parse(element)
  if not mark then
    gone[offset] = not inside and 1 or nil
    if offset >= now - ttl and (not expires or expires > now) then
      count = count + 1
    end
  end
end
unlist(gone)
redis.call('DEL', key)
redis.call('RPUSH', key, 'd' .. text(head))
redis.call('PEXPIRE', key, text(milliseconds(head - now + ttl)))
return {text(head), count}
"""
)

AMEND = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'answer', ARGV[1])
end
"""


def packed(entries: Sequence[Entry], ttl_s: float) -> tuple[bytes, bytes]:
    """Return entries, and what they claim, as APPEND takes them. ttl_s: the retention's."""
    claims = [b"\xc0" if entry.claim is None else _packed_claim(entry.claim) for entry in entries]
    while claims and claims[-1] == b"\xc0":
        claims.pop()
    return _array([_packed(entry, ttl_s) for entry in entries]), _array(claims)


def _packed(entry: Entry, ttl_s: float) -> bytes:
    users, body = _encode(entry.user_ids), _raw(entry.notification)
    if entry.ttl_s is None or entry.ttl_s >= ttl_s:
        return b"\x92" + users + body
    return b"\x93" + users + body + _encode(round(entry.ttl_s * MICROSECONDS))


def _packed_claim(claim: Claim) -> bytes:
    return b"\x93" + _raw(claim_key(claim.key)) + _raw(claim.digest) + _raw(claim.answer)


def _array(elements: Sequence[bytes]) -> bytes:
    return _LONG.pack(0xDD, len(elements)) + b"".join(elements)


def _raw(text: bytes) -> bytes:
    # As a string: Redis's MessagePack is of before there were binary ones.
    return _LONG.pack(0xDB, len(text)) + text


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a stream's entry, which Redis sends as names and texts in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def offset_of(entry_id: bytes) -> int:
    """Return the offset that an entry of the log stands for."""
    return int(entry_id[:-2])


def records(entries: Iterable[tuple[bytes, Sequence[bytes]]], after: int) -> list[Record]:
    """Return the notifications that entries of the log hold, as far as their offsets are greater than this one."""
    found: list[Record] = []
    for _, flat in entries:
        fields = pairs(flat)
        before = int(fields[b"before"])
        for offset, entry in zip(_decode_offsets(fields[b"offsets"]), _decode_entries(fields[b"entries"]), strict=True):
            if offset > after:
                body = bytes(memoryview(entry.notification)[_LONG.size :])
                found.append(Record(offset, entry.user_ids, body, before))
            before = max(before, offset)
    return found


def claim_key(key: str) -> bytes:
    return key_bytes(f"{PREFIX}key:{key}")


def key_bytes(text: str) -> bytes:
    # A lone surrogate is in no stored name; looking for it must find nothing, and not fail.
    return text.encode("utf-8", "surrogatepass")
