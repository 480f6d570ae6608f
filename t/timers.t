#!/usr/bin/env perl
# The clocks of a request: before the head an expired one is a 504, behind it
# an error event and a clean end; pings keep a silent stream alive without
# moving any of them; a slow client is no late engine; and a request whose
# clocks are all off still keeps a draining worker.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

# the slow engine says its first word after 0.6 s, then one every half second
my $t = LLM->new(no_nginx => 1, workers => 1, listen => 'sndbuf=4k',
    engine => [qw(--device null --model_name m --context 4096)],
    conf => 'llm_engine slow { server unix:SLOW; reconnect 50ms 200ms; }',
    server => <<'CONF');
        location /first/ { llm_pass slow; llm_first_token_timeout 200ms; }
        location /token/ { llm_pass slow; llm_token_timeout 200ms; }
        location /whole/ { llm_pass slow; llm_request_timeout 800ms; }
        location /ping/ { llm_pass slow; llm_ping_interval 100ms; }
        location /late/ {
            llm_pass slow;
            llm_ping_interval 50ms;
            llm_first_token_timeout 300ms;
        }
        location /gap/ {
            llm_pass slow;
            llm_ping_interval 50ms;
            llm_token_timeout 250ms;
        }
        location /off/ {
            llm_pass slow;
            llm_first_token_timeout 0;
            llm_token_timeout 0;
            llm_request_timeout 0;
        }
        location /reader/ {
            llm_pass main;
            llm_token_timeout 300ms;
            llm_output_buffer 4k;
            send_timeout 20s;
        }
        location /stalled/ {
            llm_pass main;
            llm_output_buffer 4k;
            send_timeout 500ms;
        }
CONF
my $slow = "$t->{dir}/slow.sock";
$t->{conf} =~ s/SLOW/$slow/;
$t->_spawn(slow => "$t->{dir}/slow.log", LLM->build . '/fake_engine', $slow,
    qw(--model m --delay 600 --rate 2));
$t->wait_for(sub { -S $slow }, 5);
$t->start_nginx;
$t->wait_ready;

my %short = (model => 'm', prompt => 'x', max_tokens => 2);

sub slow_log { LLM::_slurp("$t->{dir}/slow.log") }

sub cancels { scalar(() = slow_log() =~ /^cancel/mg) }

sub words { join '', map { $_->{choices}[0]{delta}{content} // '' } @_ }

sub timeout_ok {
    my ($what, $e) = @_;
    is($e->{error}{code}, 'timeout', "$what: says timeout")
        or diag($t->encode($e));
    is($e->{error}{type}, 'server_error', "$what: type");
}

# Streams a chat from the slow engine to its end.
sub run {
    my ($path, %more) = @_;
    my $start = time;
    my $s = $t->stream("$path/chat/completions", { model => 'm', max_tokens => 2,
        messages => [{ role => 'user', content => 'x' }], %more });
    $s->status(10);
    $s->{head_s} = time - $start;
    my @e = $s->events(10);
    ok($s->{whole}, "$path: a clean end");
    return ($s, @e);
}

# --- before the head: a status
for my $stream (JSON::PP::false, JSON::PP::true) {
    my ($start, $n) = (time, cancels());
    my $r = $t->post('/first/completions', { %short, stream => $stream });
    is($r->{status}, 504, "no first token (stream $stream): 504");
    timeout_ok('first token', $t->decode($r->{body}));
    cmp_ok(time - $start, '<', 0.55, 'at its time');
    ok($t->wait_for(sub { cancels() > $n }, 5), 'the engine was told');
}

# --- not streamed, the head is never out early
my $start = time;
my $r = $t->post('/token/completions', { %short });
is($r->{status}, 504, 'no second token, not streamed: 504');
$r = $t->post('/whole/completions', { %short });
is($r->{status}, 504, 'the whole takes too long, not streamed: 504');
cmp_ok(time - $start, '>', 1.5, 'neither was early');

# --- behind the head: an event
my ($s, @e) = run('/token');
is($s->{status}, 200, 'no second token, streamed: 200');
like(words(@e), qr/^w0/, 'the first came');
timeout_ok('second token', $e[-1]);
unlike(words(@e), qr/w1/, 'before the second');

($s, @e) = run('/whole', max_tokens => 20);
is($s->{status}, 200, 'request timeout: 200');
timeout_ok('request', $e[-1]);
like(words(@e), qr/^w0 (w1 )?$/, 'at its time');

# --- pings
($s, @e) = run('/ping');
is($s->{status}, 200, 'pings: 200');
cmp_ok($s->{head_s}, '<', 0.5, 'the head comes with the first');
cmp_ok($s->{pings} // 0, '>=', 5, 'many pings') or diag($s->{pings});
cmp_ok($s->{pings} // 0, '<=', 16, 'not too many');
ok($s->{done_seen}, 'the answer behind them is whole');
ok(!grep({ $_->{error} } @e), 'and right');

$r = $t->post('/ping/completions', { %short });
is($r->{status}, 200, 'not streamed: no pings');
unlike($r->{body}, qr/ping/, 'in the body');
is($t->post('/ping/completions', { %short, stream => JSON::PP::true, n => 0 })
    ->{status}, 400, 'with pings on, a wrong request still gets its status');

# nginx 1.22 sends no HTTP/2 head without a body: the ping is that body
my $body = $t->encode({ %short, stream => JSON::PP::true });
my $out = $t->curl('--http2', '-N', '-d', $body, '-w',
    '%{http_version} %{time_starttransfer} %{time_total}', $t->https('/ping/completions'));
like($out, qr/^: ping\n\n/, 'HTTP/2: the first is a ping');
like($out, qr/: ping\n\ndata: .*\[DONE\]/s, 'then come events');
my ($v, $first, $total) = $out =~ /(\S+) (\S+) (\S+)$/;
is($v, 2, 'over HTTP/2');
cmp_ok($first, '<', 0.5, 'at its time');
cmp_ok($total, '>', 1, 'while the engine is silent');

# errors are inside the 200 then, and pings are no signs of life
($s, @e) = run('/late');
is($s->{status}, 200, 'late first token behind pings: 200');
cmp_ok($s->{pings} // 0, '>=', 2, 'pings');
timeout_ok('late', $e[-1]);
is(words(@e), '', 'before the first');
$out = $t->curl('--http2', '-N', '-d', $body, $t->https('/late/completions'));
is($?, 0, 'HTTP/2: a clean end');
like($out, qr/^: ping\n\n.*"timeout"/s, 'behind ping and error');

($s, @e) = run('/gap');
timeout_ok('gap filled with pings', $e[-1]);
is(words(@e), 'w0 ', 'before the second');

# --- all clocks off: late is fine, and a reload waits for the stream
$s = $t->stream('/off/completions', { %short, max_tokens => 3 });
sleep 0.3;
$t->reload;
@e = $s->events(10);
ok($s->{done_seen}, 'no clocks: whole, across a reload');
is(join('', map { $_->{choices}[0]{text} } @e), 'w0 w1 w2 ', 'every word');
$t->wait_ready;

# --- a client that pauses is no engine that is late
my %long = (model => 'm', prompt => 'x', max_tokens => 3000);
$s = $t->stream('/reader/completions', { %long }, rcvbuf => 4096);
$s->next_event;
ok($t->wait_for(sub { $t->metric('requests_stalled') == 1 }, 10), 'a paused reader');
sleep 1;
my $text = $s->text(0, 10);
ok($s->{done_seen}, 'reads on, and gets all of it');
cmp_ok(length $text, '>', 3000 * 3, 'no hole');

# --- but one that stays away is ended by send_timeout
$s = $t->stream('/stalled/completions', { %long }, rcvbuf => 4096);
$s->next_event;
ok($t->wait_for(sub { $t->error_log =~ /client timed out/ }, 5), 'send_timeout');
ok($t->pool_is_full(3), 'its blocks are free');
1 while $s->fill(5);
unlike($s->{raw}, qr/\[DONE\]/, 'it was cut');
like($t->access_log, qr{POST /stalled/\S+ HTTP/1.1" 200 \d+}, 'and logged');

$t->stop(slow => 'TERM');
unlike(slow_log(), qr/broken/, 'the slow engine saw nothing wrong');

$t->done;
