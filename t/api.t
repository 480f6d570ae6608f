#!/usr/bin/env perl
# The OpenAI API as a user meets it: routes, shapes, usage, finish reasons,
# streamed and not, over HTTP/1.1 and HTTP/2 with TLS.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(engine => ['--model', LLM->demo]);
my $name = LLM->demo_name;

is($t->get('/health')->{status}, 200, 'health');
is($t->get('/ready')->{status}, 200, 'ready');

my $r = $t->get('/v1/models');
is($r->{status}, 200, 'models');
my $m = $t->decode($r->{body});
is($m->{object}, 'list', 'a list');
is($m->{data}[0]{id}, $name, 'of our model');
is($m->{data}[0]{object}, 'model', 'object');
is($t->decode($t->get("/v1/models/$name")->{body})->{id}, $name, 'one model');
is($t->get('/v1/models/nobody')->{status}, 404, 'no such model');

my %greedy = (model => $name, temperature => 0);

# completions
$r = $t->post('/v1/completions',
    { %greedy, prompt => 'Once upon a time', max_tokens => 20 });
is($r->{status}, 200, 'completion');
is($r->{headers}{'content-type'}, 'application/json', 'JSON');
my $c = $t->decode($r->{body});
is($c->{object}, 'text_completion', 'object');
like($c->{id}, qr/^cmpl-./, 'id');
is($c->{model}, $name, 'model');
like($c->{choices}[0]{text}, qr/^ there was an? \w+ \w+/, 'text');
is($c->{choices}[0]{finish_reason}, 'length', 'finish');
is($c->{usage}{prompt_tokens}, 4, 'prompt tokens');
is($c->{usage}{completion_tokens}, 20, 'completion tokens');
is($c->{usage}{total_tokens}, 24, 'total');
ok(defined $c->{system_fingerprint}, 'fingerprint');
cmp_ok(abs($c->{created} - time), '<', 10, 'created');

my $s = $t->stream('/v1/completions',
    { %greedy, prompt => 'Once upon a time', max_tokens => 20,
      stream_options => { include_usage => JSON::PP::true } });
my @e = $s->events;
like($s->head->{'content-type'}, qr{^text/event-stream}, 'event stream');
ok($s->{done_seen}, 'ends with [DONE]');
is_deeply($e[-1]{choices}, [], 'usage chunk has no choices');
is(join('', map { $_->{text} // '' } map { @{ $_->{choices} } } @e),
    $c->{choices}[0]{text}, 'streamed text is the same');
is($e[-1]{usage}{completion_tokens}, 20, 'usage in the last chunk');
is((grep { defined $_->{usage} } @e[0 .. $#e - 1]), 0, 'null before');
is((grep { ($_->{finish_reason} // '') eq 'length' } map { @{ $_->{choices} } } @e),
    1, 'one finish');
my %ids = map { $_->{id} => 1 } @e;
is(keys %ids, 1, 'one id');

# chat
my @messages = (messages => [{ role => 'user', content => 'Once upon a time' }]);
$r = $t->post('/v1/chat/completions', { %greedy, @messages, max_tokens => 12 });
is($r->{status}, 200, 'chat');
$c = $t->decode($r->{body});
is($c->{object}, 'chat.completion', 'object');
like($c->{id}, qr/^chatcmpl-./, 'id');
is($c->{choices}[0]{message}{role}, 'assistant', 'role');
ok(length $c->{choices}[0]{message}{content}, 'content');
$s = $t->stream('/v1/chat/completions', { %greedy, @messages, max_tokens => 12 });
@e = $s->events;
is($e[0]{choices}[0]{delta}{role}, 'assistant', 'role comes first');
is(join('', map { $_->{choices}[0]{delta}{content} // '' } @e),
    $c->{choices}[0]{message}{content}, 'streamed chat is the same');
is_deeply($e[-1]{choices}[0]{delta}, {}, 'finish chunk has an empty delta');

# n and logprobs
$c = $t->decode($t->post('/v1/completions', { %greedy, prompt => 'Once upon a time', n => 3,
    max_tokens => 6, logprobs => 2 })->{body});
is(@{ $c->{choices} }, 3, 'n = 3');
is_deeply([map { $_->{index} } @{ $c->{choices} }], [0, 1, 2], 'in order');
is($c->{choices}[1]{text}, $c->{choices}[0]{text}, 'greedy: all the same');
my $lp = $c->{choices}[0]{logprobs};
is(join('', @{ $lp->{tokens} }), $c->{choices}[0]{text}, 'tokens join to text');
is(@{ $lp->{token_logprobs} }, 6, 'a logprob each');
is(keys %{ $lp->{top_logprobs}[0] }, 2, 'two tops');
is($c->{usage}{completion_tokens}, 18, 'all choices are counted');

$c = $t->decode($t->post('/v1/chat/completions', { %greedy, @messages,
    max_tokens => 4, logprobs => JSON::PP::true, top_logprobs => 3 })->{body});
$lp = $c->{choices}[0]{logprobs}{content};
is(@$lp, 4, 'chat logprobs');
is(@{ $lp->[0]{top_logprobs} }, 3, 'three tops');
cmp_ok($lp->[0]{logprob}, '<=', 0, 'a logprob');
is($lp->[0]{token}, $lp->[0]{top_logprobs}[0]{token}, 'greedy is the top');

# seeds
my %hot = (model => $name, prompt => 'Once upon a time', max_tokens => 24, temperature => 1);
my @same = map { $t->decode($t->post('/v1/completions', { %hot, seed => 7 })->{body})
    ->{choices}[0]{text} } 1 .. 2;
is($same[0], $same[1], 'a seed repeats');
my %texts = map { $t->decode($t->post('/v1/completions', { %hot, seed => $_ })
    ->{body})->{choices}[0]{text} => 1 } 1 .. 6;
cmp_ok(keys %texts, '>', 3, 'seeds differ');

# stop strings: cut at the byte, in the middle of a token too
my $whole = $t->decode($t->post('/v1/completions', { %greedy,
    prompt => 'Once upon a time', max_tokens => 40 })->{body})->{choices}[0]{text};
my @words = split / /, $whole;
for my $stop ($words[5], substr($words[6], 1), substr($whole, 21, 9), '. ') {
    my $want = substr $whole, 0, index($whole, $stop);
    $c = $t->decode($t->post('/v1/completions', { %greedy, stop => $stop,
        prompt => 'Once upon a time', max_tokens => 40 })->{body});
    is($c->{choices}[0]{text}, $want, "stop '$stop'");
    is($c->{choices}[0]{finish_reason}, 'stop', 'finish is stop');
    is($t->stream('/v1/completions', { %greedy, stop => ['zzz', $stop],
        prompt => 'Once upon a time', max_tokens => 40 })->text, $want,
        'streamed: the same');
}

# bias, echo, lists of prompts
my $golden = $t->golden;
is($golden->{cases}[0]{prompt}, 'Once upon a time', 'the golden file begins with it');
$c = $t->decode($t->post('/v1/completions', { %greedy, prompt => 'Once upon a time',
    max_tokens => 5, logit_bias => { 300 => 100 } })->{body});
my $biased = $c->{choices}[0]{text};
isnt($biased, substr($whole, 0, length $biased), 'bias changes the text');
$c = $t->decode($t->post('/v1/completions', { %greedy, echo => JSON::PP::true,
    prompt => 'Once upon a time', max_tokens => 5 })->{body});
like($c->{choices}[0]{text}, qr/^Once upon a time there/, 'echo');
$c = $t->decode($t->post('/v1/completions', { %greedy, max_tokens => 8,
    prompt => ['Once upon a time', 'One day'], n => 2 })->{body});
is(@{ $c->{choices} }, 4, 'two prompts, two choices each');
is($c->{choices}[0]{text}, $c->{choices}[1]{text}, 'the first prompt twice');
isnt($c->{choices}[0]{text}, $c->{choices}[2]{text}, 'then the other');
$c = $t->decode($t->post('/v1/completions', { %greedy, max_tokens => 8,
    prompt => $golden->{cases}[0]{prompt_ids} })->{body});
is($c->{choices}[0]{text}, substr($whole, 0, length $c->{choices}[0]{text}),
    'token ids as prompt');

# HTTP/2 over TLS, HTTP/1.0, keep-alive
my $body = $t->encode({ %greedy, prompt => 'Once upon a time', max_tokens => 20 });
my $out = $t->curl('--http2', '-w', '\n%{http_version} %{http_code}', '-H',
    'Content-Type: application/json', '-d', $body, $t->https('/v1/completions'));
like($out, qr/\n2 200$/, 'HTTP/2');
like($out, qr/ there was a/, 'with text');
my $sbody = $t->encode({ %greedy, prompt => 'Once upon a time', max_tokens => 20,
    stream => JSON::PP::true });
$out = $t->curl('--http2', '-N', '-d', $sbody, $t->https('/v1/completions'));
like($out, qr/data: \[DONE\]\n\n$/, 'HTTP/2 stream');
$out = $t->curl('--http1.0', '-d', $body, $t->https('/v1/completions'));
like($out, qr/ there was a/, 'HTTP/1.0');
$out = $t->curl('-d', $body, $t->https('/v1/completions'), '--next', '--cacert',
    "$t->{dir}/tls.crt", '-sS', '-w', '%{num_connects}', '-d', $sbody,
    $t->https('/v1/completions'));
like($out, qr/\[DONE\]\n\n0$/, 'keep-alive: the second uses the first connection');

$t->done;
