#!/usr/bin/env perl
# Every wrong request is refused before the response head, in OpenAI's error
# shape, with the right status, and leaves nothing behind.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(engine => [qw(--device null --model_name m --context 512)],
    location => 'llm_body_buffer_size 64k;', server => 'client_max_body_size 16m;');

sub check {
    my ($what, $r, $status, $param, $code) = @_;
    is($r->{status}, $status, "$what: $status") or diag($r->{body});
    my $e = eval { $t->decode($r->{body})->{error} };
    ok(ref $e eq 'HASH' && length $e->{message} && length $e->{type}
        && exists $e->{param} && exists $e->{code}, "$what: error object")
        or diag($r->{body});
    is($e->{param}, $param, "$what: param") if defined $param;
    is($e->{code}, $code, "$what: code") if defined $code;
}

my %ok = (model => 'm', prompt => 'x', max_tokens => 2);
my %chat = (model => 'm', max_tokens => 2);
my $user = [{ role => 'user', content => 'x' }];
my $true = JSON::PP::true;

is($t->post('/v1/completions', { %ok })->{status}, 200, 'a right one');
is($t->post('/v1/completions', { %ok, unknown_field => { a => [1] } })->{status},
    200, 'unknown fields are ignored');
is($t->post('/v1/completions', { %ok, stop => undef, seed => undef })->{status},
    200, 'null is absent');

for my $bad ('', '{', 'nonsense', '[]', '"x"', '{"model":"m"', "{\"a\":\"\xff\"}",
    '[' x 3000, '{"model":"m","prompt":"x"}{}') {
    check('body ' . substr($bad, 0, 12), $t->post('/v1/completions', $bad), 400);
}

my @fields = (
    [model => 5], [model => undef], [prompt => 5], [prompt => {}],
    [prompt => [1.5]], [prompt => [-1]], [prompt => ['a', 1]], [prompt => []],
    [prompt => [('x') x 17]], [max_tokens => -1], [max_tokens => 'many'],
    [max_tokens => 1.5], [max_tokens => 1e12], [temperature => 2.1],
    [temperature => -1], [temperature => 'hot'], [top_p => 1.5], [top_p => '1'],
    [n => 0], [n => 17], [n => 1e9], [stream => 'yes'], [stream => 1],
    [stop => 5], [stop => [5]], [stop => ''], [stop => [('a') x 17]],
    [stop => 'x' x 300], [presence_penalty => 3], [frequency_penalty => -3],
    [logit_bias => []], [logit_bias => { x => 1 }], [logit_bias => { 1 => 101 }],
    [logit_bias => { 1 => 'x' }], [logprobs => 21], [logprobs => -1],
    [seed => 'x'], [top_k => -2], [min_p => 2], [repetition_penalty => -1],
    [echo => 'x'], [stream_options => 5],
    [logit_bias => { map { $_ => 1 } 0 .. 1100 }],
);
for (@fields) {
    my ($field, $value) = @$_;
    check("$field " . substr($t->encode($value), 0, 20),
        $t->post('/v1/completions', { %ok, $field => $value }), 400);
}
my $r = $t->post('/v1/completions', { %ok, temperature => 'hot' });
check('temperature', $r, 400, 'temperature');

my @messages = (
    [undef], [5], [[]], [[5]], [[{}]], [[{ role => 5, content => 'x' }]],
    [[{ role => 'nobody', content => 'x' }]], [[{ role => 'user', content => 5 }]],
    [[{ role => 'user', content => [{ type => 'image_url' }] }]],
    [[map { +{ role => 'user', content => 'x' } } 1 .. 4097]],
);
for (@messages) {
    my $what = $t->encode($_->[0]);
    $r = $t->post('/v1/chat/completions', { %chat, messages => $_->[0] });
    ok($r->{status} == 400 || ($r->{status} == 413 && length $what > 60000),
        'messages ' . substr($what, 0, 40)) or diag("$r->{status} $r->{body}");
}
check('top_logprobs', $t->post('/v1/chat/completions', { %chat, messages => $user,
    logprobs => $true, top_logprobs => 21 }), 400, 'top_logprobs');
check('response_format', $t->post('/v1/chat/completions', { %chat,
    messages => $user, response_format => { type => 'yaml' } }), 400,
    'response_format');
is($t->post('/v1/chat/completions', { %chat, messages => [{ role => 'user',
    content => [{ type => 'text', text => 'x' }] }] })->{status}, 200, 'text parts');

check('unknown model', $t->post('/v1/completions', { %ok, model => 'other' }),
    404, 'model', 'model_not_found');
check('long prompt', $t->post('/v1/completions', { %ok, prompt => 'x' x 5000 }),
    400, undef, 'context_length_exceeded');
check('ids outside', $t->post('/v1/completions', { %ok, prompt => [999999] }), 400);
check('bias outside', $t->post('/v1/completions',
    { %ok, logit_bias => { 999999 => 1 } }), 400);
check('body', $t->post('/v1/completions', { %ok, prompt => 'x' x 70000 }), 413);
check('method', $t->get('/v1/completions'), 405);
check('method', $t->post('/v1/models', {}), 405);
check('path', $t->post('/v1/nothing', {}), 404);
check('path', $t->get('/v1/'), 404);

# a stream asked for wrongly still gets a status
check('streamed', $t->post('/v1/completions', { %ok, stream => $true, n => 0 }), 400);

# the whole context is asked for: clamped, not refused
$r = $t->decode($t->post('/v1/completions', { %ok, max_tokens => 100000 })->{body});
is($r->{choices}[0]{finish_reason}, 'length', 'max_tokens beyond the context');
cmp_ok($r->{usage}{total_tokens}, '<=', 512, 'ends with it');

# bodies as they come: chunked, in pieces, larger than any default buffer
my $body = $t->encode({ %ok, prompt => 'y' x 300 });
my $chunked = join('', map { sprintf("%x\r\n%s\r\n", length, $_) }
    $body =~ /(.{1,37})/gs) . "0\r\n\r\n";
is($t->post('/v1/completions', $chunked, 'Transfer-Encoding' => 'chunked')->{status},
    200, 'chunked body');
my $s = $t->connect;
for my $piece ($t->request_text('POST', '/v1/completions', $body) =~ /(.{1,50})/gs) {
    $s->autoflush(1);
    print $s $piece;
    select undef, undef, undef, 0.002;
}
is(LLM::Stream->new($s)->whole->{status}, 200, 'body in pieces');
$body = $t->encode({ %ok, pad => 'z' x 60000 });
is($t->post('/v1/completions', $body)->{status}, 200, 'a body of 60 kB');
unlike($t->error_log, qr/buffered to a temporary file/, 'never on disk');

# pipelined requests are answered in order
$s = $t->connect;
print $s $t->request_text('POST', '/v1/completions', { %ok }, Connection => 'keep-alive')
    . $t->request_text('GET', '/v1/models', undef);
my $in = LLM::Stream->new($s);
1 while $in->fill(10);
is(() = $in->{raw} =~ m{HTTP/1.1 200}g, 2, 'pipelined: two answers');
like($in->{raw}, qr/text_completion.*"list"/s, 'in order');

$t->done;
