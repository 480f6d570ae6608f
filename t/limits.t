#!/usr/bin/env perl
# What runs out: tokens, bytes, slots, rows in the engine, room in the ring,
# connections.  Each end is a clean refusal at once, and the limit itself is
# still served.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = LLM->new(no_nginx => 1, workers => 1,
    engine => [qw(--device null --model_name m --context 8192 --slots 64)],
    server => <<'CONF');
        location /cap/ { llm_pass main; llm_max_tokens 5; }
        location /default/ { llm_pass main; llm_default_max_tokens 3; }
        location /both/ {
            llm_pass main;
            llm_max_tokens 5;
            llm_default_max_tokens 3;
        }
        location /small/ { llm_pass main; llm_body_buffer_size 2k; }
        location /body/ { llm_pass main; client_max_body_size 3k; }
        location /slots/ { llm_pass slots; }
        location /pace/ { llm_pass pace; }
        location /rows/ { llm_pass rows; }
        location /ring/ { llm_pass ring; llm_body_buffer_size 4m; }
CONF

my %engines = (
    slots => [qw(--slots 4 --step_min 20ms)],
    pace => [qw(--step_min 20ms)],
    rows => [qw(--requests 3 --step_min 20ms)],
    ring => [qw(--submit_ring 64k)],
);
for my $name (sort keys %engines) {
    my $path = "$t->{dir}/$name.sock";
    my $queue = $name eq 'slots' ? 'queue 0;' : '';
    $t->{conf} .= "llm_engine $name { server unix:$path; reconnect 50ms 200ms; $queue }\n";
    $t->_spawn($name => "$t->{dir}/engine.log", LLM->build . '/llm-engine',
        '--listen', $path, qw(--device null --model_name m --context 8192),
        @{ $engines{$name} }, $> ? () : qw(--socket_group www-data));
    $t->wait_for(sub { -S $path }, 10);
}
$t->start_nginx;
$t->wait_ready;

my $true = JSON::PP::true;
my %ok = (model => 'm', prompt => 'x', max_tokens => 2);

sub code { my ($r) = @_; (eval { $t->decode($r->{body})->{error}{code} }) // '' }

sub count {
    my ($path, %body) = @_;
    my $r = $t->post("$path/completions", { model => 'm', prompt => 'x', %body });
    return eval { $t->decode($r->{body})->{usage}{completion_tokens} }
        // "$r->{status} $r->{body}";
}

# One value of an engine's state, by the engine's name.
sub state {
    my ($name, $key) = @_;
    my ($e) = grep { $_->{name} eq $name } @{ $t->status->{engines} };
    return $e->{state}{$key} // $e->{$key};
}

# --- tokens
is(count('/cap', max_tokens => 4), 4, 'below llm_max_tokens');
is(count('/cap', max_tokens => 5), 5, 'at it');
is(count('/cap', max_tokens => 6), 5, 'above: clamped');
is(count('/cap', max_tokens => 1e6), 5, 'far above: clamped');
is(count('/cap'), 5, 'none given: clamped');
is(count('/default'), 3, 'none given: llm_default_max_tokens');
is(count('/default', max_tokens => 9), 9, 'which is no limit');
is(count('/both'), 3, 'both: the default');
is(count('/both', max_tokens => 9), 5, 'both: the limit');
my $r = $t->post('/both/chat/completions', { model => 'm', max_completion_tokens => 9,
    messages => [{ role => 'user', content => 'x' }] });
is($t->decode($r->{body})->{usage}{completion_tokens}, 5, 'max_completion_tokens too');
is($t->decode($r->{body})->{choices}[0]{finish_reason}, 'length', 'finish is length');
is(count('/both', n => 3, max_tokens => 9), 15, 'each choice has its own');

# --- bytes: to the byte, by length and in chunks
sub sized {
    my ($n) = @_;
    my $empty = $t->encode({ %ok, pad => '' });
    return $t->encode({ %ok, pad => 'z' x ($n - length $empty) });
}

sub chunked { join('', map { sprintf("%x\r\n%s\r\n", length, $_) } $_[0] =~ /(.{1,500})/gs)
    . "0\r\n\r\n" }

for my $case (['/small', 2048], ['/body', 3072]) {
    my ($path, $max) = @$case;
    is($t->post("$path/completions", sized($max))->{status}, 200, "$path: $max bytes");
    $r = $t->post("$path/completions", sized($max + 1));
    is($r->{status}, 413, "$path: one more");
    is(code($r), 'request_too_large', "$path: in the API's form");
    is($t->post("$path/completions", chunked(sized($max)),
        'Transfer-Encoding' => 'chunked')->{status}, 200, "$path: in chunks");
    $r = $t->post("$path/completions", chunked(sized($max + 1)),
        'Transfer-Encoding' => 'chunked');
    is($r->{status}, 413, "$path: one more, in chunks");
    is(code($r), 'request_too_large', "$path: in the API's form, too");
}
my $s = $t->connect;
print $s $t->request_text('POST', '/small/completions', '', 'Content-Length' => 1e9);
is(LLM::Stream->new($s)->whole(5)->{status}, 413, 'refused by its length, before it comes');

# all of a large body is sent, and the answer is read all the same
for my $http ('--http1.1', '--http2') {
    my $file = "$t->{dir}/large.json";
    open my $f, '>', $file or die $!;
    print $f sized(3_000_000);
    close $f;
    my $out = $t->curl($http, '-w', '%{http_code}', '--data-binary', "\@$file",
        $t->https('/small/completions'));
    is($?, 0, "$http: a large body: no broken connection");
    like($out, qr/request_too_large.*413$/s, "$http: but the refusal");
}
unlike($t->error_log, qr/buffered to a temporary file/, 'never on disk');

# --- slots of one worker
my %long = (model => 'm', prompt => 'x', max_tokens => 5000);
my @s = map { $t->stream('/slots/completions', { %long }) } 1 .. 4;
ok(defined $_->next_event(10), 'a slot') for @s;
for my $stream (JSON::PP::false, $true) {
    my $start = time;
    $r = $t->post('/slots/completions', { %long, stream => $stream });
    like($r->{status}, qr/^(429|503)$/, "no slot left (stream $stream): $r->{status}");
    ok($r->{headers}{'retry-after'}, 'Retry-After');
    ok(length code($r), 'with a code');
    cmp_ok(time - $start, '<', 1, 'at once');
}
is(state('slots', 'worker_slots_used'), 4, 'four are in use');
is($t->get('/health')->{status}, 200, 'the worker is not held up');
is(count('/v1', max_tokens => 2), 2, 'other engines serve');
ok($_->goes_on, 'nor are the four') for @s;
shift(@s)->close;
ok($t->wait_for(sub { $t->post('/slots/completions', { %ok })->{status} == 200 }, 5),
    'one left: there is a slot again');
$_->close for @s;
ok($t->wait_for(sub { state('slots', 'worker_slots_used') == 0 }, 5), 'all free');

# --- rows in the engine
@s = map { $t->stream('/rows/completions', { %long }) } 1 .. 3;
ok(defined $_->next_event(10), 'a row') for @s;
$r = $t->post('/rows/completions', { %long, stream => $true });
like($r->{status}, qr/^(429|503)$/, "no row left: $r->{status}");
ok($r->{headers}{'retry-after'}, 'Retry-After');
is(code($r), 'server_busy', 'server_busy');
ok($_->goes_on, 'the three go on') for @s;
shift(@s)->close;
ok($t->wait_for(sub { $t->post('/rows/completions', { %ok })->{status} == 200 }, 5),
    'one left: there is a row again');
$_->close for @s;

# --- a record is at most half the ring
is($t->post('/ring/completions', { %ok, pad => 'z' x 200_000 })->{status}, 200,
    'a large body with a small record');
is($t->post('/ring/completions', { %ok, prompt => 'x' x 5000 })->{status}, 200,
    'a record that fits');
$r = $t->post('/ring/completions', { %ok, prompt => 'x' x 40_000 });
is($r->{status}, 413, 'a record beyond half the ring');
is(code($r), 'request_too_large', 'in the API\'s form');

# more at once than the ring holds: the others wait
my @c = map { $t->connect } 1 .. 12;
print $_ $t->request_text('POST', '/ring/completions', { %ok, prompt => 'x' x 7000 })
    for @c;
my %seen;
$seen{ LLM::Stream->new($_)->whole(10)->{status} }++ for @c;
is_deeply(\%seen, { 200 => 12 }, 'a full ring');
is(count('/ring', max_tokens => 2), 2, 'and the next');

# --- lists at their caps
my $cap = sub {
    my ($what, %more) = @_;
    my $r = $t->post('/v1/completions', { %ok, %more });
    is($r->{status}, 200, $what) or diag($r->{body});
    return eval { $t->decode($r->{body}) } // {};
};
is(@{ $cap->('16 choices', n => 16)->{choices} // [] }, 16, 'and they come');
is(@{ $cap->('16 prompts', prompt => [('x') x 16])->{choices} // [] }, 16, 'and they come');
is(@{ $cap->('4 x 4', prompt => [('x') x 4], n => 4)->{choices} // [] }, 16,
    'and they come');
is($t->post('/v1/completions', { %ok, prompt => ['a', 'b'], n => 9 })->{status}, 400,
    '18 choices in all');
$cap->('16 stop strings of 256 bytes', stop => [map { chr(64 + $_) x 256 } 1 .. 16]);
$cap->('256 biases', logit_bias => { map { $_ => 1 } 0 .. 255 });
is(keys %{ $cap->('20 tops', logprobs => 20)->{choices}[0]{logprobs}{top_logprobs}[0] // {} },
    20, 'and they come');
$r = $t->post('/v1/chat/completions', { model => 'm', max_tokens => 2,
    messages => [map { +{ role => 'user', content => '' } } 1 .. 4096] });
like($r->{status}, qr/^(200|400)$/, '4096 messages are read');
isnt(code($r), 'invalid_value', 'and are not too many') or diag($r->{body});

# --- HTTP/2: many streams of one connection
SKIP: {
    skip('no h2load', 4) if system('command -v h2load >/dev/null') != 0;
    my $file = "$t->{dir}/h2.json";
    for my $case (['/v1', $t->encode({ %ok, stream => $true })],
        ['/slots', $t->encode({ %ok, stream => $true })])
    {
        my ($path, $body) = @$case;
        open my $f, '>', $file or die $!;
        print $f $body;
        close $f;
        my $out = `h2load -n 300 -c 2 -m 60 -T 20 -N 20 -d $file -H 'content-type: application/json' @{[ $t->https("$path/completions") ]} 2>&1`;
        my ($done, $failed) = $out =~ /requests: .* (\d+) done, .* (\d+) errored/;
        my ($n2, $n4, $n5) = $out =~ /status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx/;
        is($done, 300, "HTTP/2, 60 streams at once on $path: all end");
        is(($n2 // 0) + ($n4 // 0) + ($n5 // 0), 300, "$n2 served, $n4 + $n5 refused")
            or diag($out);
        cmp_ok($n2 // 0, '>', 0, 'some are served');
    }
}

# --- connections of the worker
$t->stop(nginx => 'TERM');
$t->allow(qr/worker_connections are not enough/);
$t->start_nginx($t->conf_text =~ s/worker_connections 2048/worker_connections 24/r);
$t->wait_ready;
my $attached = state('main', 'worker_attachments');
@c = ();
for (1 .. 40) {
    my $c = $t->connect or next;
    print $c $t->request_text('POST', '/pace/completions', { %long, stream => $true });
    push @c, $c;
}
my ($heads, $end) = (0, time + 3);
for my $c (@c) {
    $heads++ if LLM::Stream->new($c)->status($end > time ? 0.3 : 0) == 200;
}
cmp_ok($heads, '>', 5, "of forty clients $heads stream on 24 connections");
cmp_ok($heads, '<', 24, 'and no more');
close $_ for @c;
ok($t->wait_for(sub { $t->get('/health')->{status} == 200 }, 5), 'they left: served again');
is(count('/v1', max_tokens => 2), 2, 'by the engine');
is(state('main', 'worker_attachments'), $attached, 'which has stayed attached');
unlike($t->error_log, qr/llm engine "\w+" closed/, 'all the while');

$t->stop($_ => 'TERM') for sort keys %engines;
$t->done;
