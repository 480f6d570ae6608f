#!/usr/bin/env perl
# The table of faults: what must happen when a client, a worker or the engine
# goes away in the middle.  Each case asserts that it hit a request with
# tokens sent and tokens left.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 20ms
    --context 4096 --drain_timeout 2s)], workers => 2);
$t->allow(qr/worker process \d+ exited on signal 9/);

my %long = (model => 'm', prompt => 'x', max_tokens => 4000); # 80 s at least

# A word or a full stop is a token; an event may have several.
sub words { my $n = () = join('', @_) =~ /[ .]/g; $n }

sub text { join '', map { $_->{text} } map { @{ $_->{choices} } } @_ }

sub begin { # a stream with some tokens received
    my ($n) = @_;
    my $s = $t->stream('/v1/completions', { %long });
    for (1 .. $n // 3) {
        defined $s->next_event(10) or die 'no event';
    }
    return $s;
}

# --- client leaves in mid-stream
my $s = begin();
cmp_ok($t->metric('requests_running'), '==', 1, 'a request runs');
cmp_ok($t->metric('blocks_free'), '<', $t->metric('blocks_total'), 'with blocks');
my $before = $t->metric('completion_tokens');
$s->close;
ok($t->pool_is_full(2), 'client gone: its blocks are free');
cmp_ok($t->metric('completion_tokens') - $before, '<', 200, 'and it stopped early');
is($t->metric('requests_cancelled'), 1, 'counted');

# --- client leaves before the first token: queued in a long prefill
$s = $t->connect;
print $s $t->request_text('POST', '/v1/completions', { %long });
close $s;
ok($t->pool_is_full(2), 'client gone before an event');

# --- not streamed, client leaves
$s = $t->connect;
print $s $t->request_text('POST', '/v1/completions', { %long });
ok($t->wait_for(sub { $t->metric('requests_running') == 1 }, 5), 'runs');
close $s;
ok($t->pool_is_full(2), 'client of a whole answer gone');

# --- reload under load cuts no stream
my @s = map { begin(1) } 1 .. 6;
my %old = map { $_ => 1 } $t->pids;
ok($t->reload, 'reload: new workers');
my $fresh = $t->post('/v1/completions', { %long, max_tokens => 3 });
is($fresh->{status}, 200, 'new workers answer');
for my $one (@s) {
    my $n = 0;
    $one->drain;
    $n++ while $n < 20 && defined $one->next_event(30);
    is($n, 20, 'an old stream goes on');
}
ok((grep { $old{$_} } $t->pids) > 0, 'on the old workers');
$_->close for @s;
ok($t->wait_for(sub { !grep { $old{$_} } $t->pids }, 10), 'which then leave');
$s = $t->stream('/v1/completions', { %long, max_tokens => 30 });
my $first = $t->decode($s->next_event);
ok($t->reload, 'once more');
is(words(text($first, $s->events)), 30, 'a stream across a reload is whole');
ok($s->{done_seen}, 'and ends properly');

# --- kill -9 of a worker
@s = map { begin(2) } 1 .. 8;
my ($victim) = $t->pids;
kill KILL => $victim;
ok($t->wait_for(sub { !grep { $_ == $victim } $t->pids }, 10), 'a worker is killed');
# its streams are cut: there is an end, however much comes before it
my $neither = 0;
for my $one (@s) {
    my $n = 0;
    $one->drain;
    $n++ while $n < 12 && defined $one->next_event(30);
    $neither++ if $n < 12 && !$one->{eof};
}
is($neither, 0, 'each of the streams is cut or goes on');
my $alive;
ok($t->wait_for(sub {
    $alive = grep { $_->drain; !$_->{eof} } @s;
    $t->metric('requests_held') == $alive;
}, 10), "the engine dropped just those that were cut: $alive go on");
is(scalar(grep { $_->{whole} } @s), 0, 'which have not ended');
$_->close for @s;
ok($t->wait_for(sub { $t->pids == 2 }, 5), 'a new worker came');
$t->wait_ready;
is($t->post('/v1/completions', { %long, max_tokens => 3 })->{status}, 200,
    'and answers') for 1 .. 4;
ok($t->pool_is_full(3), 'all blocks are back');

# --- kill -9 of the engine
$s = begin(3);
my $unstreamed = $t->connect;
print $unstreamed $t->request_text('POST', '/v1/completions', { %long });
ok($t->wait_for(sub { $t->metric('requests_running') == 2 }, 5), 'two run');
$t->signal(engine => 'KILL');
$t->reap('engine');
my ($last, $e);
$last = $e while defined($e = $s->next_event(5));
like($last, qr/"error"/, 'engine killed: the stream ends with an error event');
like($last, qr/engine/, 'that says so');
ok($s->{whole}, 'and a clean end');
my $r = LLM::Stream->new($unstreamed)->whole;
is($r->{status}, 503, 'the unstreamed gets 503');
ok(defined $t->decode($r->{body})->{error}{message}, 'with an error object');
$r = $t->post('/v1/completions', { %long });
is($r->{status}, 503, 'the next gets 503');
ok($r->{headers}{'retry-after'}, 'and Retry-After');
is($t->get('/ready')->{status}, 503, 'not ready');
is($t->get('/health')->{status}, 200, 'but healthy');
is($t->get('/v1/models')->{status}, 503, 'no models known');

# --- engine restarted
$t->start_engine;
$t->wait_ready;
is($t->post('/v1/completions', { %long, max_tokens => 3 })->{status}, 200,
    'restarted: served again');

# --- drain: SIGTERM lets running requests end within drain_timeout
$s = $t->stream('/v1/completions', { %long, max_tokens => 40 });
my @head = map { $t->decode($s->next_event) } 1 .. 3;
my $too_long = begin(3);
my $start = time;
$t->signal(engine => 'TERM');
my @e = $s->events(10);
ok($s->{done_seen}, 'draining: a short one ends well');
is(words(text(@head, @e)), 40, 'and is whole');
undef $last;
$last = $e while defined($e = $too_long->next_event(10));
like($last, qr/"error"/, 'a long one gets an error event');
my $status = $t->reap('engine', 10);
is($status, 0, 'exit 0');
cmp_ok(time - $start, '<', 6, 'in time');
ok(!-e $t->{socket}, 'the socket is gone');

# --- a successor takes over while the old one drains
$t->start_engine;
$t->wait_ready;
$s = $t->stream('/v1/completions', { %long, max_tokens => 60 });
@head = map { $t->decode($s->next_event) } 1 .. 3;
$t->{pids}{old} = delete $t->{pids}{engine};
$t->signal(old => 'TERM');
ok($t->wait_for(sub { !-e $t->{socket} }, 5), 'the old one has let go of the path');
$t->start_engine;
ok($t->wait_for(sub {
    $t->post('/v1/completions', { %long, max_tokens => 2 })->{status} == 200
}, 5), 'the successor serves');
@e = $s->events(10);
ok($s->{done_seen}, 'while the old stream ends on the old ring');
is(words(text(@head, @e)), 60, 'and is whole');
is($t->reap('old', 10), 0, 'then the old one exits 0');
$t->wait_ready;

$t->done;
