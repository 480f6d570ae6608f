#!/usr/bin/env perl
# The $llm_* variables as the access log sees them, for every way a request can
# end; behind an internal redirect and in the log phase of a cut connection;
# and the request id on its way through headers, bodies and the engine.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep);

my @names = qw(model engine stream prompt_tokens cached_tokens completion_tokens
    total_tokens finish_reason queue_time prefill_time first_token_time error);
my $format = join ',', map { qq("$_":"\$llm_$_") } @names;

my $t = LLM->new(no_nginx => 1, workers => 1,
    engine => [qw(--device null --model_name m --context 512 --step_min 10ms)],
    conf => <<"CONF",
    log_format vars escape=json
        '{"case":"\$http_x_case","status":\$status,"completion":"\$request_completion",'
        '$format}';
    access_log VARS vars;
    llm_engine slow { server unix:SLOW; reconnect 50ms 200ms; }
    llm_model m engine=slow;
    llm_model public engine=slow as=m;
    llm_model mine engine=slow as=m default;
CONF
    server => <<'CONF');
        location /slow/ {
            llm_pass slow;
            llm_first_token_timeout 300ms;
            llm_request_timeout 900ms;
        }
        location /lost/ { llm_pass slow; }
        location /ignore/ { llm_pass main; llm_ignore_client_abort on; }
        location /id/ { llm_pass main; llm_request_id $http_x_request_id; }
        location /fixed/ { llm_pass main; llm_request_id "a b\"c-$arg_x"; }
        location /redirect/ {
            llm_pass main;
            error_page 400 408 412 413 500 = /error;
        }
        location = /error { return 418 "redirected\n"; }
        location /into/ { error_page 418 = @llm; return 418; }
        location @llm { llm_pass main; }
        location = /other { return 200 "x\n"; }
        location /header/ {
            llm_pass main;
            add_header x-vars "$llm_model|$llm_stream|$llm_engine" always;
        }
CONF
my ($slow, $vars) = ("$t->{dir}/slow.sock", "$t->{dir}/vars.log");
$t->{conf} =~ s/SLOW/$slow/;
$t->{conf} =~ s/VARS/$vars/;

sub fake {
    my (@args) = @_;
    unlink $slow;
    $t->_spawn(slow => "$t->{dir}/slow.log", LLM->build . '/fake_engine', $slow,
        qw(--model m), @args);
    $t->wait_for(sub { -S $slow }, 5) or diag('no fake engine');
    $t->wait_for(sub {
        (grep { $_->{name} eq 'slow' && $_->{ready} } @{ $t->status->{engines} // [] })
    }, 5);
}

$t->start_nginx;
fake('--rate', 10);
$t->wait_ready;

my $case = 0;
my %ok = (model => 'm', prompt => 'one two', max_tokens => 5);

# The log's line of a case, by its number.
sub line {
    my ($n) = @_;
    my $l;
    $t->wait_for(sub {
        ($l) = LLM::_slurp($vars) =~ /^(\{"case":"$n",.*\})$/m
    }, 10) or return {};
    return $t->decode($l);
}

# Fields that must be as given; "+" is a positive number, "t" a time.
sub logged {
    my ($what, $n, %want) = @_;
    my $l = line($n);
    for my $k (sort keys %want) {
        my $w = $want{$k};
        if ($w eq '+') {
            like($l->{$k}, qr/^[1-9]\d*$/, "$what: $k");
        } elsif ($w eq 't') {
            like($l->{$k}, qr/^\d+\.\d{3}$/, "$what: $k");
        } else {
            is($l->{$k}, $w, "$what: $k");
        }
    }
    return $l;
}

sub post {
    my ($path, $body) = @_;
    $case++;
    return $t->post($path, $body, 'X-Case' => $case);
}

sub begin {
    my ($path, $body, %h) = @_;
    $case++;
    my $s = $t->connect;
    print $s $t->request_text('POST', $path, { %$body, stream => JSON::PP::true },
        'X-Case' => $case, %h);
    return LLM::Stream->new($s);
}

my @none = map { $_ => '' } @names;
my @times = map { $_ => 't' } qw(queue_time prefill_time first_token_time);

# --- whole answers
my $u = $t->decode(post('/v1/completions', { %ok })->{body})->{usage};
logged('normal', $case, status => 200, completion => 'OK', model => 'm', engine => 'main',
    stream => 0, prompt_tokens => $u->{prompt_tokens}, cached_tokens => 0,
    completion_tokens => 5, total_tokens => $u->{total_tokens},
    finish_reason => 'length', error => '', @times);

my $s = begin('/v1/completions', { %ok, max_tokens => 30 });
$s->events;
$s->close;
my $l = logged('streamed', $case, status => 200, completion => 'OK', model => 'm',
    engine => 'main', stream => 1, prompt_tokens => $u->{prompt_tokens},
    completion_tokens => 30, finish_reason => 'length', error => '', @times);
cmp_ok($l->{first_token_time}, '<', 0.25, 'the first of thirty is early');

$u = $t->decode(post('/v1/completions', { %ok, n => 3 })->{body})->{usage};
logged('three choices', $case, completion_tokens => 15, total_tokens => $u->{total_tokens});
post('/v1/completions', { %ok, stop => 'ipsum', max_tokens => 100 });
logged('stop', $case, finish_reason => 'stop', completion_tokens => '+');

post('/slow/completions', { %ok, model => 'public' });
logged('public name', $case, model => 'public', engine => 'slow', cached_tokens => 2,
    prompt_tokens => 7, total_tokens => 12, queue_time => '0.001', prefill_time => '0.002');
post('/slow/completions', { prompt => 'x', max_tokens => 1 });
logged('default', $case, model => 'mine', status => 200);

# --- refused
post('/v1/completions', { %ok, n => 0 });
logged('wrong field', $case, @none, status => 400, error => 'invalid_value');
post('/v1/completions', '{');
logged('wrong JSON', $case, @none, status => 400, error => 'invalid_json');
post('/v1/nothing', {});
logged('wrong path', $case, @none, status => 404, error => 'unknown_url');
post('/v1/completions', { %ok, model => 'who' });
logged('wrong model', $case, @none, status => 404, model => 'who', stream => 0,
    error => 'model_not_found');
post('/v1/completions', 'x' x 1100000);
logged('too large', $case, @none, status => 413, error => 'request_too_large');
post('/v1/completions', { %ok, prompt => 'x ' x 900 });
logged('too long', $case, status => 400, model => 'm', engine => 'main',
    finish_reason => 'error', error => 'context_length_exceeded', first_token_time => '');
$case++;
$t->get('/other', 'X-Case' => $case);
logged('another location', $case, @none, status => 200);
$case++;
$t->get('/v1/models', 'X-Case' => $case);
logged('models', $case, @none, status => 200);

# --- clients that leave
$s = begin('/v1/completions', { %ok, max_tokens => 400 });
$s->next_event for 1 .. 3;
$s->close;
logged('left a stream', $case, status => 200, completion => '', model => 'm',
    stream => 1, finish_reason => 'abort', completion_tokens => '+', error => '',
    first_token_time => 't', prompt_tokens => '', total_tokens => '');
$case++;
my $c = $t->connect;
print $c $t->request_text('POST', '/v1/completions', { %ok, max_tokens => 400 },
    'X-Case' => $case);
$t->wait_for(sub { $t->metric('requests_running') }, 5);
close $c;
logged('left before the head', $case, status => 499, completion => '', model => 'm',
    engine => 'main', stream => 0, finish_reason => 'abort', error => '');
$case++;
$c = $t->connect;
print $c $t->request_text('POST', '/v1/completions', '{"mod', 'X-Case' => $case,
    'Content-Length' => 100);
sleep 0.1;
close $c;
logged('left in the body', $case, @none, status => 400, completion => '');
$s = begin('/ignore/completions', { %ok, max_tokens => 60 });
$s->next_event;
$s->close;
logged('left, ignored', $case, status => 200, finish_reason => 'length',
    completion_tokens => 60, total_tokens => '+');

# --- timed out
post('/slow/completions', { %ok, max_tokens => 100 });
logged('timed out', $case, status => 504, finish_reason => 'timeout', error => 'timeout',
    completion_tokens => '+', engine => 'slow');
$s = begin('/slow/completions', { %ok, max_tokens => 100 });
1 while defined $s->next_event;
$s->close;
logged('timed out in a stream', $case, status => 200, completion => 'OK',
    finish_reason => 'timeout', error => 'timeout', completion_tokens => '+');
$t->stop(slow => 'KILL');
fake('--delay', 2000);
post('/slow/completions', { %ok });
logged('no first token', $case, status => 504, finish_reason => 'timeout',
    error => 'timeout', completion_tokens => '', first_token_time => '');

# --- engine lost
$t->stop(slow => 'KILL');
fake('--rate', 20, '--die-after', 3);
$s = begin('/lost/completions', { %ok, max_tokens => 100 });
1 while defined $s->next_event;
$s->close;
logged('engine lost', $case, status => 200, completion => 'OK', finish_reason => 'error',
    error => 'engine_lost', completion_tokens => 3);
$t->reap('slow');
fake('--rate', 20, '--die-after', 0);
post('/lost/completions', { %ok });
logged('engine lost at once', $case, status => 503, finish_reason => 'error',
    error => 'engine_lost', completion_tokens => '');
$t->reap('slow');
ok($t->wait_for(sub { !$t->status->{engines}[1]{attached} }, 5), 'the worker knows');
post('/lost/completions', { %ok, model => 'public' });
logged('no engine', $case, status => 503, stream => 0, error => 'engine_unavailable',
    completion_tokens => '', finish_reason => '');
fake();

# --- behind an internal redirect: what was known stays known
$case++;
my $r = $t->post('/redirect/completions', "4\r\nabcd\r\nnonsense\r\n",
    'Transfer-Encoding' => 'chunked', 'X-Case' => $case);
is($r->{body}, "redirected\n", 'a broken body is redirected');
logged('redirected', $case, @none, status => 418);
post('/into/completions', { %ok });
logged('redirected to us', $case, status => 200, model => 'm', finish_reason => 'length',
    completion_tokens => 5);
$s = begin('/header/completions', { %ok });
is($s->head->{'x-vars'}, 'm|1|main', 'in a response header');
$s->events;

# --- conditions of a cached GET mean nothing here
for my $h (['If-Match', '"x"'], ['If-None-Match', '*'],
    ['If-Unmodified-Since', 'Thu, 01 Jan 1970 00:00:00 GMT'],
    ['If-Modified-Since', 'Thu, 01 Jan 2037 00:00:00 GMT'], ['Range', 'bytes=0-3'])
{
    my $n = ++$case;
    $r = $t->post('/redirect/completions', { %ok }, @$h, 'X-Case' => $n);
    is($r->{status}, 200, "$h->[0]: 200");
    like($r->{body}, qr/"usage"/, "$h->[0]: all of it");
    logged($h->[0], $n, status => 200, model => 'm', finish_reason => 'length');
    $s = begin('/redirect/completions', { %ok }, @$h);
    is($s->status, 200, "$h->[0]: streamed");
    $s->events;
    ok($s->{done_seen}, "$h->[0]: to the end");
}

# --- request ids
$r = $t->post('/v1/completions', { %ok });
my $id = $r->{headers}{'x-request-id'};
like($id, qr/^[0-9a-f]{32}$/, 'x-request-id is $request_id');
is($t->decode($r->{body})->{id}, "cmpl-$id", 'the answer\'s id too');
like($t->post('/v1/completions', '{')->{headers}{'x-request-id'}, qr/^[0-9a-f]{32}$/,
    'with an error');
like($t->get('/v1/models')->{headers}{'x-request-id'}, qr/^[0-9a-f]{32}$/, 'with a list');
$s = $t->stream('/v1/completions', { %ok });
like($s->head->{'x-request-id'}, qr/^[0-9a-f]{32}$/, 'with a stream');
$s->events;
for my $case (['abc.DEF:1_2-3', 'abc.DEF:1_2-3'], ["a b\"\\<c>\t\xff", 'abc'],
    ['y' x 500, 'y' x 128], ['', undef], ['""', undef])
{
    my ($given, $want) = @$case;
    my $r = $t->post('/id/completions', { %ok },
        length $given ? ('X-Request-Id' => $given) : ());
    my $got = $r->{headers}{'x-request-id'};
    defined $want ? is($got, $want, 'the client\'s id, harmless')
        : like($got, qr/^[0-9a-f]{24}$/, 'none: a number');
    is($t->decode($r->{body})->{id}, "cmpl-$got", 'the same in the answer');
}
is($t->post('/fixed/completions?x=1', { %ok })->{headers}{'x-request-id'}, 'abc-1',
    'any value');

$t->stop(slow => 'TERM');
$t->done;
