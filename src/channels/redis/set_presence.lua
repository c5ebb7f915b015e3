-- node, channel, subscribers, member ('' for none), connections of that member: nothing.
-- One that was given up would not be given up again.
if not call('ZSCORE', 'nodes', ARGV[2]) then return redis.error_reply('GIVENUP this node was silent') end
if ARGV[5] ~= '' then
    if tonumber(ARGV[4]) > 0 then call('SADD', 'of:' .. ARGV[2], ARGV[3]) end
    be(ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6]))
end
count(ARGV[2], ARGV[3], tonumber(ARGV[4]))
return renewed
