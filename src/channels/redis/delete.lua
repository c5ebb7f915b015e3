-- channel, code, reason: nothing.
epoch()
append(math.huge, 0, 200, 'kind', 'delete', 'channel', ARGV[2], 'code', ARGV[3], 'reason', ARGV[4])
return renewed
