#!/usr/bin/env perl
# Processes that stand still, and crowds.  A worker that is stopped with its
# rings full, an engine that hangs, both at once (a machine that slept: the
# clock jumps); HTTP/2 streams reset as fast as they begin, connections that
# say their headers and no more.  Catches: one that waits for another, a jump
# that is taken for a hang, a slot or a block that a reset leaves behind.

use strict;
use warnings;
use lib 't/lib';
use IO::Socket::INET;
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $h2c = LLM->free_port;
my $t = LLM->new(workers => 2,
    engine => [qw(--device null --model_name m --context 8192 --kv_memory 256m --step_min 1ms
        --slots 128 --submit_ring 64k --event_ring 64k)],
    server => "        listen 127.0.0.1:$h2c http2;\n        client_body_timeout 1s;\n"
        . "        client_header_timeout 1s;\n        llm_token_timeout 4s;\n");

sub begin { # a stream with its first event read
    my ($n) = @_;
    my $s = $t->stream('/v1/completions', { model => 'm', prompt => 'x', max_tokens => $n,
        ignore_eos => JSON::PP::true });
    my $e = $s->next_event(20);
    $s->{first} = $e && LLM->decode($e)->{choices}[0]{text};
    return $s;
}

sub whole { # how many of them end as they should, with so many tokens
    my ($n, @s) = @_;
    return scalar grep {
        my $text = ($_->{first} // '') . $_->text(0, 30);
        $_->{done_seen} && (() = $text =~ /[ .]/g) == $n;
    } @s;
}

sub stand_still { # and not only be told to: who still wakes up takes connections
    my @pids = @_;
    kill STOP => @pids;
    $t->wait_for(sub {
        !grep { open my $f, '<', "/proc/$_/stat" or die; <$f> !~ /\) T / } @pids;
    });
}

sub ask { $t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => 3 })->{status} }

my @workers = $t->pids;

# --- a worker stands still: 16 streams, half of them or so its own, are more
# than its EVENT ring takes
my @s = map { begin(500) } 1 .. 16;
stand_still($workers[0]);
my @asked = map { ask() } 1 .. 20;
is(scalar(grep { $_ == 200 } @asked), 20, 'a worker is stopped: the other serves');
sleep 0.7;
kill CONT => $workers[0];
is(whole(500, @s), 16, 'it goes on: every stream is whole');
ok($t->pool_is_full, 'nothing of them is left');

# --- both stand still for longer than a hang, or a token, is allowed to take
@s = map { begin(500) } 1 .. 4;
stand_still($t->{pids}{engine}, @workers);
sleep 4.5;
kill CONT => $t->{pids}{engine}, @workers;
is(whole(500, @s), 4, 'the clock jumps: every stream is whole');
unlike($t->error_log, qr/no heartbeat/, 'and nobody is taken for hung');

# --- the engine hangs: its SUBMIT ring fills, nobody waits
@s = map { begin(7000) } 1 .. 4;
$t->signal(engine => 'STOP');
my @more = map {
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'y ' x 4000,
        max_tokens => 3 });
    LLM::Stream->new($c);
} 1 .. 40;
is($t->get('/health')->{status}, 200, 'an engine hangs: workers do not');
my @e = map { $_->status(30) } @more;
is(scalar(grep { $_ == 503 || $_ == 429 } @e), 40, 'forty more are refused: '
    . (grep { $_ == 429 } @e) . ' for want of room') or diag("@e");
ok(!(grep { !$_->{headers}{'retry-after'} } @more), 'with Retry-After');
my $errors = 0;
for my $s (@s) {
    my $last = '';
    while (defined(my $e = $s->next_event(30))) { $last = $e }
    $errors++ if $last =~ /"error"/ && $s->{whole};
}
is($errors, 4, 'the running ones end with an error event');
like($t->error_log, qr/no heartbeat/, 'as it shows no heartbeat');
my $attached = sub { scalar(() = $t->engine_log =~ /^.* attached, epoch/mg) };
my $had = $attached->();
$t->signal(engine => 'CONT');
# by both workers, as each has given it up
ok($t->wait_for(sub { $attached->() >= $had + @workers }, 30), 'it goes on: both are back');
ok($t->wait_for(sub { 4 == grep { $_ == 200 } map { ask() } 1 .. 4 }, 30), 'and served');
ok($t->pool_is_full, 'nothing of the others is left');

# --- HTTP/2: streams that are reset as soon as they have begun
sub frame {
    my ($type, $flags, $stream, $data) = @_;
    return substr(pack('N', length $data), 1) . pack('CCN', $type, $flags, $stream) . $data;
}
sub hpack { my ($s) = @_; return chr(length $s) . $s }

my $body = LLM->encode({ model => 'm', prompt => 'x', max_tokens => 1000,
    stream => JSON::PP::true });
my $head = "\x83\x86\x04" . hpack('/v1/completions') . "\x01" . hpack('localhost');
my $before = $t->metric('requests_total');
@s = map { begin(1000) } 1 .. 4;
my ($resets, $connections) = (0, 0);
while ($resets < 2000 && $connections < 200) {
    my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$h2c") or last;
    local $SIG{PIPE} = 'IGNORE';
    $connections++;
    syswrite $c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, '') or next;
    for (my $id = 1; $id < 400; $id += 2) {
        # some of them when the engine has them already
        syswrite $c, frame(1, 4, $id, $head) . frame(0, 1, $id, $body) or last;
        sleep 0.002 if $id % 16 == 1;
        syswrite $c, frame(3, 0, $id, pack 'N', 8) or last;
        $resets++;
    }
    close $c;
}
cmp_ok($resets, '>=', 2000, "$resets streams are reset in $connections connections");
is(whole(1000, @s), 4, 'streams beside them are whole');
ok($t->pool_is_full(30), 'nothing of them is left');
cmp_ok($t->metric('requests_total') - $before, '>', 10, 'many had come to the engine: '
    . ($t->metric('requests_total') - $before));

# --- connections that say their headers, or half of them, and no more
my $text = $t->request_text('POST', '/v1/completions', '', 'Content-Length' => 100);
my @crowd = grep { $_ } map { $t->connect } 1 .. 300;
print { $crowd[$_] } substr $text, 0, $_ % 2 ? length $text : 40 for 0 .. $#crowd;
is(scalar(grep { $_ == 200 } map { ask() } 1 .. 10), 10, '300 that say no more: others are served');
my $ended = grep { my $in = LLM::Stream->new($_); 1 while $in->fill(30); $in->{eof} } @crowd;
is($ended, scalar @crowd, 'their time ends');

my %used;
ok($t->wait_for(sub {
    my $st = $t->status;
    $used{ $st->{pid} } = $st->{engines}[0]{worker_slots_used};
    keys %used == 2 && !grep { $_ } values %used;
}, 20), 'no slot is in use');
is(join(' ', sort $t->pids), join(' ', sort @workers), 'no worker has died');

$t->done;
