-- Store entries in one step: give offsets, check idempotency keys, append to users' lists and to the log of all nodes.
--
-- Keys, all after the prefix:
--   head         the newest offset given
--   began        the offset at which this store began; after a flush it begins anew
--   log          a stream; each entry is what was stored together, with the id `<its last offset>-0` and the fields
--                `entries`, `offsets` (MessagePack array, 0 for a repeat), `before` (the offset before them, by which a
--                reader sees that nothing is missing) and `logged`; it covers the last two minutes
--   logged       the number of bytes of entries ever written to the log
--   user:<id>    a user's list, oldest first: `<offset>`, or `<offset>:<expires>` if its own ttl ends it before retention
--                does, followed by a blank and the notification if it is small and for this user alone. The first element
--                is `d<offset>` if retention by count, or deletion, has dropped elements up to that offset
--   body:<offset>  any other notification, once for all its users: the number of lists it is on (8 digits), then its bytes
--   key:<key>    a hash: the offset, digest and answer of an idempotency key
--   keys         a list: the idempotency keys in the order of their use
--
-- Lists and not sorted sets: offsets arrive in order and are read from the end, a push costs the same whatever the length,
-- and a list of 1,000 entries takes a tenth of the memory. Everything but head, began and the log expires by itself.
--
-- Arguments after those of common.lua:
local max_per_user = tonumber(ARGV[5])     -- retention by count
local claimed_for = tonumber(ARGV[6])      -- microseconds for which an idempotency key is kept
local max_log_bytes = tonumber(ARGV[7])    -- of the entries in the log
local log_span = tonumber(ARGV[8])         -- microseconds that the log covers
local after = tonumber(ARGV[9])            -- return the log after this offset; '': do not
local connections = ARGV[10]               -- prefix of the hashes of users' connections, to count them; '': do not count
local max_foreign = tonumber(ARGV[11])     -- entries of the log that are returned at most
local max_keys = tonumber(ARGV[12])        -- idempotency keys kept at most; above it the oldest are dropped
local packed_entries = ARGV[13]            -- MessagePack array of {users, notification, own ttl in microseconds or nothing}
local packed_claims = ARGV[14]             -- MessagePack array of nil or {key, digest, answer, key of the version before}
-- Without the last two nothing is stored, but it is checked that Redis accepts writes.
--
-- Returns {head, offset before, 1 if nothing was stored because more than max_foreign entries have to be delivered first,
-- log entries after `after`, then for each entry {offset, users, connections}, or {offset, digest, answer, ''} of the first
-- use of its idempotency key}.

local MAX_BYTES_IN_LIST = 1024  -- a larger notification for one user gets a key of its own

local log, trim_step = prefix .. 'log', max_log_bytes / 100
if anew and redis.call('EXISTS', log) == 1 then
  -- The head was lost and the log was not. The id of a new entry must be greater than all before it.
  local facts = redis.call('XINFO', 'STREAM', log)
  for at = 1, #facts, 2 do
    if facts[at] == 'last-generated-id' then
      head = math.max(head, tonumber(string.match(facts[at + 1], '^%d+')))
      began = head
    end
  end
end

local foreign = {}
if after and after < head then
  foreign = redis.call('XRANGE', log, '(' .. text(after) .. '-0', '+', 'COUNT', max_foreign)
  if #foreign == max_foreign then
    return {text(head), string.match(foreign[max_foreign][1], '^%d+'), 1, foreign}
  end
end

local outcomes, gone = {'', text(head), 0, foreign}, {}

-- Return how many of these users have a connection, and how many connections they have.
local function count_connections(users)
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

-- Append an element to a user's list. lifetime: milliseconds for which the list must live; some more are set, so that not
-- every push has to set them.
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

-- Return {offset, digest, answer} of the first use of an idempotency key within claimed_for, or nil.
local function first_use(key)
  local first = redis.call('HMGET', key, 'offset', 'digest', 'answer')
  if first[1] and tonumber(first[1]) > now - claimed_for then
    return first
  end
end

local function claim(key, offset, digest, answer)
  redis.call('HSET', key, 'offset', offset, 'digest', digest, 'answer', answer)
  redis.call('PEXPIRE', key, text(milliseconds(head - now + claimed_for)))
  local excess = redis.call('RPUSH', prefix .. 'keys', key) - max_keys
  redis.call('PEXPIRE', prefix .. 'keys', text(milliseconds(head - now + claimed_for)))
  if excess > 0 then
    for _, oldest in ipairs(redis.call('LPOP', prefix .. 'keys', excess)) do
      if oldest ~= key then
        redis.call('DEL', oldest)
      end
    end
  end
end

local entries, claims, offsets, before = {}, {}, {}, head
if packed_entries then
  entries, claims = cmsgpack.unpack(packed_entries), cmsgpack.unpack(packed_claims)
end
for at, entry in ipairs(entries) do
  local users, body, own_ttl, claimed = entry[1], entry[2], entry[3], claims[at]
  local first = claimed and (first_use(claimed[1]) or claimed[4] and first_use(claimed[4]))
  if first then
    first[4] = ''
    outcomes[#outcomes + 1], offsets[at] = first, 0
  else
    head = math.max(now, head + 1)
    local offset = text(head)
    local reached, sockets = count_connections(users)
    outcomes[#outcomes + 1], offsets[at] = {head, reached, sockets}, head
    if claimed then
      local answer = claimed[3]
      if connections ~= '' then
        answer = string.format('[%d,%d]', reached, sockets)
      end
      claim(claimed[1], offset, claimed[2], answer)
    end
    if #users > 0 and own_ttl ~= 0 then
      local element, lifetime, body_lifetime = offset, milliseconds(head - now + ttl)
      if own_ttl then
        element, body_lifetime = offset .. ':' .. text(now + own_ttl), milliseconds(own_ttl)
      end
      if #users == 1 and #body <= MAX_BYTES_IN_LIST then
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
  local size = #packed_entries
  local logged = redis.call('INCRBY', prefix .. 'logged', size)
  redis.call(
    'XADD', log, 'MINID', '~', text(math.max(0, head - log_span)), text(head) .. '-0',
    'logged', text(logged), 'before', text(before), 'offsets', cmsgpack.pack(offsets), 'entries', packed_entries
  )
  if logged % trim_step < size then
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if logged - tonumber(oldest[2][2]) > max_log_bytes then
      redis.call('XTRIM', log, 'MAXLEN', '~', math.floor(redis.call('XLEN', log) * 0.9))
    end
  end
end
release_bodies(gone)
store_head()
outcomes[1] = text(head)
return outcomes
