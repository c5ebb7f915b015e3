-- node, and the epoch, number and time of the last entry that it has read (a time of 0: it has not read that one):
-- the epoch, the last number, the last that is not kept, whether the node was known, and whether a new epoch has begun
-- since there was what these scripts have not written.
local e, at, node = epoch(), now(), ARGV[2]
if not is_sound() then
    renew()
elseif e == ARGV[3] and fell_back(tonumber(ARGV[4]), ARGV[5]) then
    redis.call('SET', P .. 'epoch', ARGV[1])
end
local known = call('ZSCORE', 'nodes', node) and 1 or 0
call('ZADD', 'nodes', at, node)
for _, silent in ipairs(call('ZRANGEBYSCORE', 'nodes', '-inf', at - SILENCE)) do bury(silent) end
return { epoch(), count_of('sequence'), count_of('gone'), known, renewed }
