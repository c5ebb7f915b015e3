-- node: the epoch, the last number, the last that is not kept, and whether the node was known.
local e, at, node = epoch(), now(), ARGV[2]
local known = redis.call('ZSCORE', P .. 'nodes', node) and 1 or 0
redis.call('ZADD', P .. 'nodes', at, node)
for _, silent in ipairs(redis.call('ZRANGEBYSCORE', P .. 'nodes', '-inf', at - SILENCE)) do bury(silent) end
return { e, redis.call('GET', P .. 'sequence') or '0', redis.call('GET', P .. 'gone') or '0', known }
