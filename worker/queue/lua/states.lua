-- What became of deliveries.
-- KEYS: the queue.
-- ARGV: the ids of their jobs.
-- Returns one letter a job: p (a worker has picked it), q (queued), a (absent).

local states = {}
for i, id in ipairs(ARGV) do
    if redis.call('EXISTS', 'arq:in-progress:' .. id) == 1 then
        states[i] = 'p'
    elseif redis.call('ZSCORE', KEYS[1], id) and redis.call('EXISTS', 'arq:job:' .. id) == 1 then
        states[i] = 'q'
    else
        states[i] = 'a'
    end
end
return table.concat(states)
