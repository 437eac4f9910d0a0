-- Put jobs into a host's queue, and wake idle workers.
-- KEYS: the queue, its wake list, the key that names the queue's store.
-- ARGV: the caller's store ("<id> <name>", or "" to ask no questions), when the jobs are enqueued in milliseconds
-- since 1970, milliseconds that a body is kept, the most tokens that the wake list holds, id, body, id, body ...

local queue, wake = KEYS[1], KEYS[2]
local now, ttl, tokens = ARGV[2], ARGV[3], ARGV[4]

local mine, theirs = ARGV[1], redis.call('GET', KEYS[3]) or ''
if mine ~= '' and theirs ~= '' and string.match(theirs, '^%S*') ~= string.match(mine, '^%S*') then
    return redis.error_reply('OTHERSTORE ' .. string.sub(theirs, 1, 300))
end

for i = 5, #ARGV, 2 do
    redis.call('PSETEX', 'arq:job:' .. ARGV[i], ttl, ARGV[i + 1])
    redis.call('ZADD', queue, now, ARGV[i])
    redis.call('LPUSH', wake, '')
end
redis.call('LTRIM', wake, 0, tokens - 1)
