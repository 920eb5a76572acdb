-- Replace the answer of an idempotency key, if the key is still kept.
local key = KEYS[1]
local answer = ARGV[1]

if redis.call('EXISTS', key) == 1 then
  redis.call('HSET', key, 'answer', answer)
end
