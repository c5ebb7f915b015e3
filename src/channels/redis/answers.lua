-- id: the nodes that have answered, and what.
return call('HGETALL', 'answers:' .. ARGV[2])
