#!/usr/bin/env perl
# Long bodies, which a thread parses: they are judged like short ones, hold up
# nobody else, and neither a client that leaves in the middle, nor a reload,
# nor the end of worker_shutdown_timeout loses a request or touches freed
# memory.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = LLM->new(workers => 1,
    main => 'thread_pool default threads=2;',
    conf => 'client_max_body_size 16m;',
    location => 'llm_body_buffer_size 16m;',
    engine => [qw(--device null --model_name m --context 20000)]);

# A chat that is slow to parse and short to submit: a field that is ignored
# holds a lot of numbers.
sub slow_body {
    my ($values, %more) = @_;
    my $body = $t->encode({ model => 'm', max_tokens => 2,
        messages => [ { role => 'user', content => 'x' } ], %more });
    my $junk = join ',', ('0') x $values;
    $body =~ s/^\{/{"metadata":[$junk],/;
    return $body;
}

sub chat { $t->post('/v1/chat/completions', @_) }

sub error_of {
    my ($r) = @_;
    my $e = eval { $t->decode($r->{body})->{error} } // {};
    return join ' ', $r->{status}, $e->{code} // '-', $e->{param} // '-';
}

# --- the same verdicts ------------------------------------------------------

my $pad = 'x' x 70_000;
my $ok = '"model":"m","messages":[{"role":"user"}]';
for my $case (
    [ 'not JSON', '{"model":%s' ],
    [ 'no object', '["m"%s]', ',' ],
    [ 'no messages', '{"model":"m"%s}' ],
    [ 'a wrong type', "{$ok,\"n\":\"one\"%s}" ],
    [ 'out of range', "{$ok,\"top_p\":7%s}" ],
    [ 'unsupported', "{$ok,\"audio\":{}%s}" ],
    [ 'unknown model', '{"model":"q","messages":[{"role":"user"}]%s}' ],
) {
    my ($name, $form, $comma) = @$case;
    $comma //= ',"user":';
    my ($short, $long) = map { error_of(chat(sprintf $form, $_)) }
        '', "$comma\"$pad\"";
    is($long, $short, "$name: a long body is refused like a short one");
    like($short, qr/^4\d\d \w/, "$name: and by name");
}

sub prompt_tokens {
    my $r = chat({ model => 'm', max_tokens => 1,
        messages => [ { role => 'user', content => $_[0] } ] });
    return $r->{status} == 200 ? $t->decode($r->{body})->{usage}{prompt_tokens} : $r->{status};
}

# the null device's tokens are bytes
my $words = 'word ' x 2000;
is(prompt_tokens("$words\n" . 'y' x 200) - prompt_tokens("$words\n"), 200,
    'short bodies: a token for each byte');
my $r = $t->post('/v1/completions', { model => 'm', max_tokens => 3,
    prompt => [ ('z') x 4 ], user => $pad, stop => [ "\x{1}", 'never' ],
    logit_bias => { 7 => 1 } });
is($r->{status}, 200, 'several prompts, stops and biases in a long body');
is(scalar @{ $t->decode($r->{body})->{choices} // [] }, 4, 'four choices');

$r = chat($t->encode({ model => 'm', max_tokens => 2, stream => JSON::PP::true,
    messages => [ { role => 'user', content => 'x' } ], user => $pad }));
is($r->{status}, 200, 'streamed');
like($r->{body}, qr/"delta":.*data: \[DONE\]\n\n$/s, 'to its end');

# The arguments that have curl post a body over HTTP/2.
sub h2_post {
    my ($body) = @_;
    open my $f, '>', "$t->{dir}/body" or die $!;
    print $f $body;
    close $f;
    return ('-d', "\@$t->{dir}/body", '-H', 'Expect:', '-H',
        'Content-Type: application/json', $t->https('/v1/chat/completions'));
}

my $out = $t->curl(h2_post(slow_body(200_000)), '-w', ' %{http_version} %{http_code}');
like($out, qr/"finish_reason".* 2 200$/s, 'over TLS and HTTP/2');

# --- nobody waits -----------------------------------------------------------

sub begin {
    my ($body, @close) = @_;
    my $s = $t->connect;
    print $s $t->request_text('POST', '/v1/chat/completions', $body, @close);
    return LLM::Stream->new($s);
}

# A second of parsing or so; the health check overtakes it, in one worker.
my $stream = $t->stream('/v1/completions',
    { model => 'm', prompt => 'x', max_tokens => 200, ignore_eos => JSON::PP::true });
my $slow = begin(slow_body(1_900_000));
is($t->get('/health')->{status}, 200, 'health while a long body is parsed');
ok(!IO::Select->new($slow->socket)->can_read(0), 'which is not answered yet');
$stream->events;
ok($stream->{done_seen}, 'a stream goes on to its end');
is($slow->whole->{status}, 200, 'and the long one is answered');

# --- who leaves -------------------------------------------------------------

sub lines { scalar(() = $t->access_log =~ /" $_[0] /g) }

my ($before, $left) = (lines(qr/\d+/), lines(499));
my $body = slow_body(600_000);
for my $i (1 .. 12) {
    my $s = begin($body);
    sleep 0.004 * ($i % 4);
    $s->close;
}
ok($t->wait_for(sub { lines(qr/\d+/) == $before + 12 }, 30),
    'twelve clients left: each has its line');
cmp_ok(lines(499) - $left, '>', 6, 'most of them left in the middle');
is(chat($body)->{status}, 200, 'the next one is answered');

my @quick = ('curl', '-sk', '--max-time', 0.25, '-o', '/dev/null', h2_post($body));
system(@quick);
is(chat($body)->{status}, 200, 'one over HTTP/2 left');

# --- pipelining: the next request comes while the first is parsed -----------

my $s = $t->connect;
print $s $t->request_text('POST', '/v1/chat/completions', $body,
    Connection => 'keep-alive'), $t->request_text('GET', '/health');
my $first = LLM::Stream->new($s);
$first->fill until $first->{raw} =~ /HTTP.*HTTP.*\r\n\r\n/s || $first->{eof};
like($first->{raw}, qr/^HTTP\/1.1 200 .*"usage".*HTTP\/1.1 200 /s, 'pipelined');

# --- reload -----------------------------------------------------------------

my @going = map { begin($body) } 1 .. 4;
$t->reload;
is(join(' ', map { $_->whole->{status} } @going), '200 200 200 200',
    'a reload while four are parsed');
$t->wait_ready;

# One that may not wait: two threads, and far more work than its time.
my ($worker) = $t->pids;
$t->{main} .= 'worker_shutdown_timeout 100ms;';
$t->write_conf;
$t->reload;
$t->wait_for(sub { !kill 0, $worker }, 20);
$t->wait_ready;
($worker) = $t->pids;
$body = slow_body(1_000_000);
my @many = map { begin($body) } 1 .. 8;
$t->reload;
$t->wait_ready;
is(chat(slow_body(1))->{status}, 200, 'the new worker answers');
my @status = map { $_->whole(30)->{status} } @many;
# 503: what was with the engine when the time was over
is(scalar(grep { /^(200|503|0)$/ } @status), 8,
    'whatever the old one was parsing is answered or ended')
    or diag("@status");
ok((grep { $_ == 0 } @status) > 0, 'some were ended in the middle');
ok($t->wait_for(sub { !kill 0, $worker }, 20), 'and it ends');

$t->done;
