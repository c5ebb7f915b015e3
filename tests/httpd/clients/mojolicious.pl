# Mojolicious, Perl's. It compresses by itself where the server agrees, an empty text included. Usage: mojolicious.pl URL
use Mojo::Base -strict;
use Mojo::IOLoop;
use Mojo::UserAgent;

my @texts = ('', 'hello', '', 'h' x 100_000, "\x{e4}\x{20ac}", 'the same', 'the same', 'the same');
my $ua = Mojo::UserAgent->new;
my $closed;
$ua->websocket(
  $ARGV[0] => {'Sec-WebSocket-Extensions' => 'permessage-deflate'} => sub {
    my ($ua, $tx) = @_;
    die 'no WebSocket: ' . $tx->res->code unless $tx->is_websocket;
    my $received = 0;
    $tx->on(text => sub {
      my ($tx, $bytes) = @_;
      utf8::decode($bytes);
      die "text $received came back changed" unless $bytes eq $texts[$received];
      $tx->finish(4321, 'done') if ++$received == @texts;
      $tx->send({text => Mojo::Util::encode('UTF-8', $texts[$received])}) if $received < @texts;
    });
    $tx->on(finish => sub {
      my ($tx, $code) = @_;
      $closed = "closed $code after $received texts, compressed " . ($tx->compressed ? 'yes' : 'no');
      Mojo::IOLoop->stop;
    });
    $tx->send({text => Mojo::Util::encode('UTF-8', $texts[0])});
  }
);
Mojo::IOLoop->timer(30 => sub { die 'nothing came for 30 seconds' });
Mojo::IOLoop->start;
say $closed;
