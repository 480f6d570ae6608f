#!/usr/bin/env perl
# What may be put around a location without a word from us: another request
# that takes its place (post_action), a copy of its body (mirror), its answer
# inside another one, a header made of what the client wrote.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

# a server that reads requests, and answers when it is told to
my $beside = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16) or die $!;
my $port = $beside->sockport;

my $t = LLM->new(workers => 1,
    engine => [qw(--device null --model_name m --context 20000 --step_min 1ms)],
    conf => 'log_format after "$status $llm_finish_reason $llm_model."; access_log AFTER after;',
    server => <<"CONF");
        location /after/ { llm_pass main; post_action \@after; }
        location \@after { proxy_pass http://127.0.0.1:$port; proxy_read_timeout 5s; }
        location = /left { return 200 ok; post_action /v1/completions; }
        location /copied/ { llm_pass main; mirror /copy; mirror_request_body on; }
        location = /copy {
            internal;
            proxy_pass http://127.0.0.1:$port;
            proxy_read_timeout 2s;
        }
        location /named/ {
            llm_pass main;
            add_header x-model \$llm_model always;
        }
        location = /frame.html { ssi on; default_type text/html; alias DIR/frame.html; }
CONF
$t->{conf} =~ s/AFTER/$t->{dir}\/after.log/;
$t->{server} =~ s/DIR/$t->{dir}/;
open my $f, '>', "$t->{dir}/frame.html" or die $!;
print $f "<!--#include virtual=\"/status\" -->in the middle\n"
    . "<!--#include virtual=\"/health\" -->end\n";
close $f;
$t->stop(nginx => 'TERM');
$t->start_nginx;
$t->wait_ready;
my ($worker) = $t->pids;

my %ok = (model => 'm', prompt => 'x', max_tokens => 5);
my $true = JSON::PP::true;

# the next request at the server beside: head and body, and its connection
sub beside {
    return if !IO::Select->new($beside)->can_read(5);
    my $c = $beside->accept or return;
    my $in = '';
    while ($in !~ /\r\n\r\n(.*)/s || length $1 < ($in =~ /^Content-Length: (\d+)/mi ? $1 : 0)) {
        IO::Select->new($c)->can_read(2) or last;
        sysread $c, $in, 65536, length $in or last;
    }
    return ($in, $c);
}

# --- post_action: the client leaves, and the request goes on as another one
my $n = $t->metric('requests_cancelled');
for my $stream ($true, JSON::PP::false) {
    my $c = $t->connect;
    print $c $t->request_text('POST', '/after/completions',
        { %ok, max_tokens => 300, stream => $stream });
    my $in = LLM::Stream->new($c);
    $stream ? $in->fill(5) : sleep 0.05;
    close $c;
    my ($text, $other) = beside();
    like($text // '', qr{^POST /}, "post_action has begun (stream $stream)");
    ok($t->wait_for(sub { $t->metric('requests_held') == 0 }, 5), 'the first has ended');
    print $other "HTTP/1.0 200 OK\r\n\r\n" if $other;
}
is($t->metric('requests_cancelled'), $n + 2, 'was cancelled');
my $s = $t->stream('/after/completions', { %ok });
is($s->text, $t->decode($t->post('/v1/completions', { %ok })->{body})->{choices}[0]{text},
    'post_action behind a whole stream: it is whole');
my ($text, $other) = beside();
like($text // '', qr{^POST /}, 'and then');
print $other "HTTP/1.0 200 OK\r\n\r\n" if $other;

# --- a body that is being thrown away is none for us
my $c = $t->connect;
print $c $t->request_text('POST', '/left', 'xx', 'Content-Length' => 100_000);
like(LLM::Stream->new($c)->whole(3)->{body}, qr/ok/, 'the rest of a discarded body');
close $c;

# --- mirror: the copy has the body, too
for my $size (10, 3000, 100_000) {
    my $json = $t->encode({ %ok, user => 'z' x $size });
    $c = $t->connect;
    print $c $t->request_text('POST', '/copied/completions', $json);
    ($text, $other) = beside();
    is(length(($text // '') =~ /\r\n\r\n(.*)/s ? $1 : ''), length $json,
        "mirror: a body of $size bytes is copied");
    print $other "HTTP/1.0 204 No Content\r\n\r\n" if $other;
    close $other if $other;
    is(LLM::Stream->new($c)->whole(5)->{status}, 200, 'and served');
}

# --- what a client calls a model stays out of headers
my $r = $t->post('/named/completions', { %ok });
is($r->{headers}{'x-model'}, 'm', 'a model\'s name in a header');
$r = $t->post('/named/completions', { %ok, model => 'who' });
is($r->{headers}{'x-model'}, 'who', 'one that is not known');
for my $model ("a\r\nx-evil: 1", "a\nb", "a\x00b", "a\x7fb", "\r\n\r\n<html>") {
    $r = $t->post('/named/completions', { %ok, model => $model });
    is($r->{status}, 404, 'control characters: no such model');
    ok(!exists $r->{headers}{'x-evil'} && !defined $r->{headers}{'x-model'},
        'and in no header') or diag($t->encode($r->{headers}));
    like($r->{body}, qr/^\{"error"/, 'the body begins where it should');
}

# --- a status inside of another answer
my $raw = $t->connect;
print $raw $t->request_text('GET', '/frame.html');
my $in = LLM::Stream->new($raw);
$r = $in->whole(3);
like($r->{body}, qr/^\{"worker".*\nin the middle\n\{"status":"ok"\}\nend\n\z/s,
    'subrequests: all parts, in order') or diag($r->{body});
1 while $in->fill(3);
is($in->{raw}, '', 'and nothing behind the end');

is(($t->pids)[0], $worker, 'the worker never died');

$t->done;
