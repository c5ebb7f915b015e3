-- node, channel, subscribers, member ('' for none), connections of that member: nothing.
if ARGV[5] ~= '' then
    if tonumber(ARGV[4]) > 0 then redis.call('SADD', P .. 'of:' .. ARGV[2], ARGV[3]) end
    be(ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6]))
end
count(ARGV[2], ARGV[3], tonumber(ARGV[4]))
return 0
