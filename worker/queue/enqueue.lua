-- Put jobs into a queue, and wake idle workers.
-- KEYS: the queue, its wake list.
-- ARGV: when they are enqueued in milliseconds since 1970, milliseconds that a body is kept, the most tokens that
-- the wake list holds, id, body, id, body ...

local queue, wake = KEYS[1], KEYS[2]
local now, ttl, tokens = ARGV[1], ARGV[2], ARGV[3]

for i = 4, #ARGV, 2 do
    redis.call('PSETEX', 'arq:job:' .. ARGV[i], ttl, ARGV[i + 1])
    redis.call('ZADD', queue, now, ARGV[i])
    redis.call('LPUSH', wake, '')
end
redis.call('LTRIM', wake, 0, tokens - 1)
