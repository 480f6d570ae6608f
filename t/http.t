#!/usr/bin/env perl
# HTTP as clients and other modules of nginx bend it: half-closing, aborting,
# pipelining, cut and slow bodies, methods, versions; filters and subrequests
# around a location; and that the first event never waits for the last.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = LLM->new(workers => 1,
    engine => [qw(--device null --model_name m --context 4096 --step_min 5ms)],
    conf => <<'CONF',
    log_format ends '"$request" $status $llm_finish_reason $llm_completion_tokens.';
    access_log ENDS ends;
CONF
    server => <<'CONF');
        listen unix:SOCK;
        client_body_timeout 700ms;
        location /ignore/ { llm_pass main; llm_ignore_client_abort on; }
        location /gzip/ {
            llm_pass main;
            gzip on;
            gzip_types *;
            gzip_min_length 1;
            gzip_proxied any;
        }
        location /slowly/ { llm_pass main; limit_rate 8k; }
        location /postpone/ { llm_pass main; postpone_output 64k; }
        location /delay/ { llm_pass main; tcp_nodelay off; }
        location /mirror/ { llm_pass main; mirror /v1/completions; }
        location /auth/ { llm_pass main; auth_request /v1/completions; }
        location = /auth-models { auth_request /v1/models; alias DIR/ssi.html; }
        location /page/ { ssi on; default_type text/html; alias DIR/; }
        location /except/ {
            llm_pass main;
            limit_except GET { deny 127.0.0.2; }
        }
        location /if/ {
            llm_pass main;
            if ($arg_x) { add_header x-if yes always; }
        }
        location /rewrite/ { rewrite ^/rewrite/(.*)$ /v1/$1 last; }
        location /preread/ {
            llm_pass main;
            mirror /sink;
            client_body_buffer_size 1k;
        }
        location = /sink { internal; return 204; }
        location /denied/ { llm_pass main; deny all; }
CONF
my $unix = "$t->{dir}/http.sock";
for (qw(conf server)) {
    $t->{$_} =~ s/SOCK/$unix/;
    $t->{$_} =~ s/ENDS/$t->{dir}\/ends.log/;
    $t->{$_} =~ s/DIR/$t->{dir}\/page/g;
}
mkdir "$t->{dir}/page";
open my $f, '>', "$t->{dir}/page/ssi.html" or die $!;
print $f "before <!--#include virtual=\"/v1/models\" --> after\n";
close $f;
$t->stop(nginx => 'TERM');
$t->start_nginx;
$t->wait_ready;

my %ok = (model => 'm', prompt => 'x', max_tokens => 5);
my %long = (%ok, max_tokens => 3000);
my $true = JSON::PP::true;

sub ends { LLM::_slurp("$t->{dir}/ends.log") }

sub ended { my ($re) = @_; $t->wait_for(sub { ends() =~ $re }, 5) }

# Text over a new connection, then what $do does with it; all that comes back.
sub raw {
    my ($text, $do) = @_;
    my $s = $t->connect;
    print $s $text;
    my $in = LLM::Stream->new($s);
    $do->($s, $in) if $do;
    1 while $in->fill(10);
    return $in->{raw};
}

# --- the first event is there while later ones are to come
for my $path ('/v1', '/gzip', '/postpone', '/delay', '/except', '/if', '/rewrite') {
    my $start = time;
    my $s = $t->stream("$path/completions", { %ok, max_tokens => 60 });
    ok(defined $s->next_event(5), "$path: the first event");
    my $first = time - $start;
    my @e = $s->events(10);
    cmp_ok($first, '<', (time - $start) / 3, "$path: comes first");
    ok($s->{done_seen}, "$path: and the last last");
}
for my $case (['--http2'], ['--http1.1'], ['--http1.1', '--compressed']) {
    my $path = @$case > 1 ? '/gzip' : '/v1';
    my $out = $t->curl(@$case, '-N', '-d', $t->encode({ %ok, max_tokens => 60,
        stream => $true }), '-D', "$t->{dir}/head", '-w', '%{time_starttransfer} %{time_total}',
        $t->https("$path/completions"));
    my ($first, $total) = $out =~ /\[DONE\]\n\n(\S+) (\S+)$/;
    cmp_ok($first // 9, '<', ($total // 0) / 3, "@$case: first comes first");
    like(LLM::_slurp("$t->{dir}/head"), @$case > 1 ? qr/^content-encoding: gzip/mi
        : qr/^(?!.*content-encoding)/si, "@$case: encoding");
}

my $s = $t->stream('/slowly/completions', { %ok, max_tokens => 80 });
my $start = time;
my $text = $s->text(0, 20);
ok($s->{done_seen}, 'limit_rate: whole');
cmp_ok(time - $start, '>', 1, 'and slow') or diag($s->{bytes});
is($text, $t->decode($t->post('/v1/completions', { %ok, max_tokens => 80 })->{body})
    ->{choices}[0]{text}, 'and right');

# --- HTTP/2 by curl, HTTP/1.0, a unix socket
is($t->curl('--unix-socket', $unix, '-d', $t->encode({ %ok }), '-o', '/dev/null',
    '-w', '%{http_code}', 'http://localhost/v1/completions'), 200, 'over a unix socket');
like($t->curl('--unix-socket', $unix, '-N', '-d', $t->encode({ %ok, stream => $true }),
    'http://localhost/v1/completions'), qr/\[DONE\]\n\n$/, 'streamed over it');
my $json = $t->encode({ %ok, stream => $true });
my $r = raw("POST /v1/completions HTTP/1.0\r\nContent-Length: @{[ length $json ]}\r\n\r\n$json");
like($r, qr{^HTTP/1.1 200.*\r\n\r\ndata: .*\[DONE\]\n\n\z}s, 'HTTP/1.0: no chunks');
unlike($r, qr/^transfer-encoding/mi, 'and no such header');
like($r, qr/^connection: close/mi, 'but the end of the connection');

# --- methods
for my $case (['GET', '/v1/models', 200], ['HEAD', '/v1/models', 200],
    ['HEAD', '/v1/models/m', 200], ['HEAD', '/v1/models/nobody', 404],
    ['HEAD', '/v1/completions', 405], ['OPTIONS', '/v1/completions', 405],
    ['OPTIONS', '/v1/models', 405], ['DELETE', '/v1/models/m', 405],
    ['PUT', '/v1/completions', 405], ['FOO', '/v1/completions', 405])
{
    my ($method, $path, $status) = @$case;
    $r = raw($t->request_text($method, $path));
    like($r, qr{^HTTP/1.1 $status}, "$method $path: $status") or diag($r);
    like($r, qr/^Allow: \w/mi, "$method $path: Allow") if $status == 405;
    like($r, qr/\r\n\r\n\z/, "$method $path: no body") if $method eq 'HEAD';
    like($r, qr/\r\n\r\n\{/, "$method $path: a body") if $method ne 'HEAD';
}

# --- Expect: 100-continue
$json = $t->encode({ %ok });
my $head = $t->request_text('POST', '/v1/completions', '', Expect => '100-continue',
    'Content-Length' => length $json);
$r = raw($head, sub {
    my ($c, $in) = @_;
    $in->fill(5);
    like($in->{raw}, qr{^HTTP/1.1 100 }, 'Expect: asked to go on');
    print $c $json;
});
like($r, qr{HTTP/1.1 200.*"usage"}s, 'and answered');
$s = $t->connect;
print $s $t->request_text('POST', '/v1/completions', '', Expect => '100-continue',
    'Content-Length' => 5_000_000);
my $refused = LLM::Stream->new($s)->whole(5); # the connection lingers
is($refused->{status}, 413, 'Expect with too much: refused before it is sent');

# --- keep-alive behind a stream, pipelining with a stream first
$s = $t->connect;
for my $i (1 .. 3) {
    print $s $t->request_text('POST', '/v1/completions', { %ok, stream => $true },
        Connection => 'keep-alive');
    my $in = LLM::Stream->new($s);
    $in->events(5);
    ok($in->{done_seen} && $in->{whole}, "stream $i of one connection");
}
print $s $t->request_text('GET', '/v1/models');
is(LLM::Stream->new($s)->whole(5)->{status}, 200, 'and another request');
$r = raw($t->request_text('POST', '/v1/completions', { %ok, stream => $true },
        Connection => 'keep-alive')
    . $t->request_text('POST', '/v1/completions', { %ok, max_tokens => 1 },
        Connection => 'keep-alive')
    . $t->request_text('GET', '/v1/models/m'));
is(() = $r =~ m{HTTP/1.1 200 OK}g, 3, 'pipelined: three answers');
like($r, qr/\[DONE\]\n\n\r\n0\r\n\r\nHTTP.*"usage".*HTTP.*"owned_by"/s, 'in order');
$r = raw($t->request_text('POST', '/v1/completions', '{', Connection => 'keep-alive')
    . $t->request_text('GET', '/v1/models/m'));
like($r, qr{^HTTP/1.1 400.*HTTP/1.1 200}s, 'keep-alive behind a refusal');

# --- bodies that are not what they say
$json = $t->encode({ %ok });
$r = raw($t->request_text('POST', '/v1/completions', $json,
    'Content-Length' => 10 + length $json), sub { $_[0]->shutdown(1) });
unlike($r, qr/HTTP.* 200/, 'shorter than its length, then closed: not served');
ok(ended(qr/^"POST \S+ HTTP\/1.1" 400 - -\.$/m), 'logged as 400');
$r = raw($t->request_text('POST', '/v1/completions', $json . 'garbage',
    'Content-Length' => length $json, Connection => 'keep-alive'));
like($r, qr{^HTTP/1.1 200.*HTTP/1.1 400}s, 'longer: the rest is a bad request');
$r = raw($t->request_text('POST', '/v1/completions', substr($json, 0, 9)
    . 'x' x length $json, 'Content-Length' => 9));
like($r, qr{^HTTP/1.1 400.*invalid_json}s, 'cut by its length: not JSON');
$start = time;
$r = raw($t->request_text('POST', '/v1/completions', '{"model":',
    'Content-Length' => 100));
cmp_ok(time - $start, '<', 3, 'a body that stops coming: client_body_timeout');
ok(ended(qr/" 408 - -\.$/m), 'logged as 408');
my $chunks = sprintf "%x\r\n%s\r\n", length $json, $json;
for my $case (['cut in a chunk', substr($chunks, 0, 20)],
    ['cut between chunks', $chunks], ['cut in a size', $chunks . '0'],
    ['bad size', "zz\r\n$json\r\n0\r\n\r\n"],
    ['huge size', "ffffffffffffffff\r\n$json"],
    ['more than its size', "3\r\n$json\r\n0\r\n\r\n"])
{
    my ($what, $body) = @$case;
    $r = raw($t->request_text('POST', '/v1/completions', $body,
        'Transfer-Encoding' => 'chunked'), sub { $_[0]->shutdown(1) });
    unlike($r, qr/HTTP.* 200/, "chunked, $what: not served");
}
$r = raw($t->request_text('POST', '/v1/completions', '', 'Transfer-Encoding' => 'chunked'),
    sub {
        my ($c) = @_;
        for my $piece ("${chunks}0\r\n\r\n" =~ /(.{1,9})/gs) {
            print $c $piece;
            sleep 0.01;
        }
    });
like($r, qr{^HTTP/1.1 200}, 'a slow one is');
$r = raw($t->request_text('POST', '/v1/completions', "${chunks}0\r\nA: b\r\n\r\n",
    'Transfer-Encoding' => 'chunked'));
like($r, qr{^HTTP/1.1 200}, 'one with a trailer, too');
is(LLM::Stream->new(do { my $c = $t->connect; print $c
    $t->request_text('POST', '/v1/completions'); $c })->whole(5)->{status}, 400,
    'no body at all: 400');

# --- a client that closes its sending side has left
my $n = $t->metric('requests_cancelled');
$r = raw($t->request_text('POST', '/v1/completions', { %long, max_tokens => 600,
    stream => $true }), sub { $_[1]->fill(5); $_[0]->shutdown(1) });
unlike($r, qr/\[DONE\]/, 'half closed: cut');
ok($t->wait_for(sub { $t->metric('requests_cancelled') == $n + 1 }, 5), 'cancelled');
ok(ended(qr/" 200 abort \d+\.$/m), 'logged as abort');
for my $stream ($true, JSON::PP::false) {
    $r = raw($t->request_text('POST', '/ignore/completions', { %ok, max_tokens => 33,
        stream => $stream }), sub { $_[0]->shutdown(1) });
    like($r, $stream ? qr/\[DONE\]/ : qr/"completion_tokens":33\b/,
        "llm_ignore_client_abort, half closed (stream $stream): served");
}
is($t->metric('requests_cancelled'), $n + 1, 'and not cancelled');
for my $i (1 .. 2) {
    $s = $t->stream('/ignore/completions', { %ok, max_tokens => 70 + $i });
    $s->next_event;
    $s->close;
    my $want = 70 + $i;
    ok(ended(qr{^"POST /ignore/\S+ HTTP/1.1" 200 length $want\.$}m),
        'gone altogether: it still ends, and counts');
}
is($t->metric('requests_cancelled'), $n + 1, 'not cancelled either');

# --- HTTP/2: a stream is reset, its connection stays
$n = $t->metric('requests_cancelled');
$t->curl('--http2', '-N', '-d', $t->encode({ %long, stream => $true }),
    '--max-time', '0.4', '-o', '/dev/null', '--stderr', '/dev/null', $t->https('/v1/completions'));
is($? >> 8, 28, 'HTTP/2: curl gives up');
ok($t->wait_for(sub { $t->metric('requests_cancelled') == $n + 1 }, 5), 'cancelled');
ok($t->pool_is_full(3), 'its blocks are free');
$t->curl('--http2', '-N', '-d', $t->encode({ %ok, max_tokens => 150, stream => $true }),
    '--max-time', '0.4', '-o', '/dev/null', '--stderr', '/dev/null',
    $t->https('/ignore/completions'));
ok(ended(qr{^"POST /ignore/\S+ HTTP/2.0" 200 length 150\.$}m),
    'HTTP/2, ignored: it ends, and counts');

# --- many that leave at once, before and after sending
$n = $t->metric('requests_total');
for my $i (1 .. 200) {
    my $c = $t->connect or next;
    my $text = $t->request_text('POST', '/v1/completions', { %long, stream => $true });
    print $c substr $text, 0, (0, 30, length($text) - 3, length $text)[$i % 4];
    setsockopt $c, Socket::SOL_SOCKET, Socket::SO_LINGER, pack 'ii', 1, 0 if $i % 3 == 0;
    close $c;
}
is($t->post('/v1/completions', { %ok })->{status}, 200, '200 aborts: served');
ok($t->wait_for(sub { $t->metric('requests_held') == 0 }, 5), 'none is left');
is($t->metric('worker_slots_used'), 0, 'nor a slot');
my $st = $t->status->{engines}[0];
is($st->{requests_total}, $st->{requests_done} + $st->{requests_failed}
    + $st->{requests_cancelled}, 'each has ended');

# --- subrequests are refused, cleanly
$r = $t->get('/page/ssi.html');
is($r->{status}, 200, 'SSI: the page comes');
like($r->{body}, qr/^before .* after$/s, 'whole');
unlike($r->{body}, qr/"object"/, 'without us in it');
like($t->error_log, qr/does not serve subrequests/, 'as the log says');
is($t->post('/auth/completions', { %ok })->{status}, 500, 'as auth_request: refused');
is($t->get('/auth-models')->{status}, 500, 'so is a list');
$r = $t->post('/mirror/completions', { %ok });
is($r->{status}, 200, 'as a mirror: the request itself is served');
$s = $t->stream('/mirror/completions', { %ok });
$s->events;
ok($s->{done_seen}, 'streamed, too');

# --- a body that another module has read first, even to disk
$t->allow(qr/buffered to a temporary file/);
for my $size (10, 500, 100_000) {
    $r = $t->post('/preread/completions', { %ok, pad => 'z' x $size });
    is($r->{status}, 200, "a body of $size bytes that has been read before");
}
is($t->post('/preread/completions', { %ok, pad => 'z' x 1_100_000 })->{status}, 413,
    'and one that is too large');
is($t->post('/denied/completions', { %ok })->{status}, 403, 'access rules apply');
is($t->post('/if/completions?x=1', { %ok })->{headers}{'x-if'}, 'yes', 'and if');

$t->done;
