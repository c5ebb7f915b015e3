-- node: nothing.
bury(ARGV[2])
return renewed
