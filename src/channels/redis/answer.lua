-- id, node, sessions: nothing. Whoever asks does so within a minute.
call('HSET', 'answers:' .. ARGV[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', P .. 'answers:' .. ARGV[2], MINUTE)
return 0
