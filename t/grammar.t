#!/usr/bin/env perl
# Catches: an answer that does not obey what its request says, or obeys only
# whole, only streamed, only one of several or only where there is no thought
# of logprobs; a constraint that is dropped instead of refused, or refused
# without the field; a call that was demanded and is none; a grammar that holds
# up others, or that a client who left leaves behind.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $name = LLM->demo_name;
my $t = LLM->new(engine => ['--model', LLM->demo, '--grammar_timeout', '400ms'], workers => 1);

my $ask = { role => 'user', content => 'Give me a person as JSON.' };
my %chat = (model => $name, temperature => 0, max_tokens => 150, messages => [$ask]);
my %text = (model => $name, temperature => 0, max_tokens => 150, prompt => 'A pet: ');

sub post { # status and answer
    my ($path, $body) = @_;
    my $r = $t->post($path, $body);
    return ($r->{status}, LLM->decode($r->{body}));
}

# What a request gets from chat and from completions, whole and streamed: four
# texts, each with its end.
sub all_ways {
    my (%more) = @_;
    my @got;
    for (['/v1/chat/completions', \%chat], ['/v1/completions', \%text]) {
        my ($path, $base) = @$_;
        my ($status, $d) = post($path, { %$base, %more });
        my $c = $d->{choices}[0];
        push @got, [$c->{text} // $c->{message}{content} // '', $c->{finish_reason} // "$status $d->{error}{message}"];
        my $s = $t->stream($path, { %$base, %more });
        my ($text, $finish) = ('', '');
        while (defined(my $e = $s->next_event(20))) {
            last if $e eq '[DONE]';
            for my $c (@{ LLM->decode($e)->{choices} // [] }) {
                $text .= $c->{text} // $c->{delta}{content} // '';
                $finish = $c->{finish_reason} // $finish;
            }
        }
        push @got, [$text, $finish];
    }
    return @got;
}

# Do all four end by themselves, are streams as the whole, and does each pass?
sub obeys {
    my ($what, $more, $is) = @_;
    my @got = all_ways(%$more);
    is(join(' ', map { $_->[1] } @got), 'stop stop stop stop', "$what: ends");
    is($got[$_ + 1][0], $got[$_][0], "$what: streamed as whole") for 0, 2;
    ok(!(grep { !$is->($_->[0]) } @got), "$what: obeys") or diag(map { "$_->[0]\n" } @got);
    return $got[0][0];
}

sub json { my ($s) = @_; return eval { LLM->decode($s) } }

# --- JSON ----------------------------------------------------------------------

obeys('json_object', { response_format => { type => 'json_object' } },
    sub { ref json($_[0]) eq 'HASH' });

# all that it takes is bounded, so that any model comes to an end
my $schema = '{"type": "object", "additionalProperties": false, "required": ["kind", "n", "ok", "tags"],'
    . '"properties": {"kind": {"enum": ["cat", "dog"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99},'
    . '"ok": {"type": "boolean"}, "tags": {"type": "array", "maxItems": 3,'
    . '"items": {"type": "string", "pattern": "^[a-z]{1,8}$"}}}}';
my $parsed = LLM->decode($schema);
sub pet {
    my $d = json($_[0]);
    return ref $d eq 'HASH' && join(' ', sort keys %$d) eq 'kind n ok tags'
        && $d->{kind} =~ /^(?:cat|dog)$/ && $d->{n} == int $d->{n} && $d->{n} >= 0 && $d->{n} <= 99
        && JSON::PP::is_bool($d->{ok}) && ref $d->{tags} eq 'ARRAY' && @{ $d->{tags} } <= 3
        && !grep { !/^[a-z]{1,8}$/ } @{ $d->{tags} };
}
# written by hand: a hash of Perl's has no order
my $strict = qq({"type":"json_schema","json_schema":{"name":"pet","strict":true,"schema":$schema}});
my $body = LLM->encode({ %chat }) =~ s/\}$/,"response_format":$strict,"json_options":{"whitespace":false}}/r;
my $r = $t->post('/v1/chat/completions', $body);
my $pet = LLM->decode($r->{body})->{choices}[0]{message}{content} // '';
ok(pet($pet), 'json_schema, strict') or diag($r->{body});
like($pet, qr/^\{"kind":"\w+","n":\S+,"ok":\w+,"tags":\[\S*\]\}$/, 'in the order of the schema, without space');

my %compact = (json_options => { whitespace => $false });
obeys($_->[0], { %compact, %{ $_->[1] } }, \&pet) for (
    ['json_schema', { response_format => { type => 'json_schema',
        json_schema => { name => 'pet', schema => $parsed } } }],
    ['guided_json', { guided_json => $schema }],
    ['structured_outputs', { structured_outputs => { json => $parsed } }],
    ["TGI's grammar", { grammar => { type => 'json', value => $parsed } }],
);

# who would have written so anyway writes the same tokens: none is kept from it, none is put in its place
my %person = (%chat, logprobs => $true);
sub tokens { # and their text
    my (%more) = @_;
    my (undef, $d) = post('/v1/chat/completions', { %person, %more });
    my @lps = @{ $d->{choices}[0]{logprobs}{content} // [] };
    return join('|', map { $_->{token} } @lps);
}
my $unbound = tokens();
for my $order (qw(any declared)) {
    is(tokens(json_options => { property_order => $order }, guided_json => '{"type": "object", "required":'
        . '["name", "age", "city"], "additionalProperties": false, "properties": {"name": {"type": "string"},'
        . '"age": {"type": "integer"}, "city": {"type": "string"}}}'), $unbound, "$order order: the same tokens");
}
is(tokens(response_format => { type => 'json_object' }), $unbound, 'json_object: the same tokens');

# --- others ---------------------------------------------------------------------

my $plate = sub { $_[0] =~ /^[A-Z]{2}-\d{3}$/ };
obeys('guided_regex', { guided_regex => '[A-Z]{2}-\d{3}' }, $plate);
obeys('regex', { regex => '^[A-Z]{2}-\d{3}$' }, $plate);
obeys('guided_choice', { guided_choice => ['a red fox', 'a blue fox', "\x{e9}t\x{e9}"] },
    sub { $_[0] =~ /^(?:a (?:red|blue) fox|\x{e9}t\x{e9})$/ });
obeys('ebnf', { ebnf => qq(root ::= item ("," item)? "."\nitem ::= "red" | "blue") },
    sub { $_[0] =~ /^(?:red|blue)(?:,(?:red|blue))?\.$/ });
obeys('guided_grammar', { guided_grammar => 'root ::= [a-c] [a-c]' }, sub { $_[0] =~ /^[a-c]{2}$/ });

# a tag takes hold where its trigger is, and nowhere else
my %about = (%chat, messages => [{ role => 'user', content => 'What are you?' }]);
my (undef, $d) = post('/v1/chat/completions', { %about });
my $free = $d->{choices}[0]{message}{content};
like($free, qr/ngx/, 'the model says the trigger by itself');
my %tag = (structures => [{ begin => 'ngx', schema => { const => 'seven' }, end => '!' }], triggers => ['ngx']);
my $form = { type => 'triggered_tags', triggers => ['ngx'], tags => [{ begin => 'ngx', end => '!',
    content => { type => 'json_schema', json_schema => { const => 'seven' } } }] };
for ([response_format => { type => 'structural_tag', %tag }], [structural_tag => LLM->encode({ %tag })],
    [response_format => { type => 'structural_tag', format => $form }]) {
    (undef, $d) = post('/v1/chat/completions', { %about, @$_, %compact });
    my $said = $d->{choices}[0]{message}{content} // '';
    like($said, qr/ngx\s*"seven"\s*!/, "$_->[0]: the tag") or diag(LLM->encode($d));
    unlike($said, qr/ngx(?!\s*"seven"\s*!)/, "$_->[0]: whenever it begins");
    is(($said =~ /^(.*?)ngx/s)[0], ($free =~ /^(.*?)ngx/s)[0], "$_->[0]: and nothing before");
}
(undef, $d) = post('/v1/chat/completions', { %about, structural_tag =>
    { structures => [{ begin => '<f>', schema => {}, end => '</f>' }], triggers => ['<f>'] } });
is($d->{choices}[0]{message}{content}, $free, 'no trigger, no change');

# --- beside other wishes ----------------------------------------------------------

(undef, $d) = post('/v1/chat/completions', { %chat, n => 2, temperature => 1, seed => 5,
    guided_json => $schema, %compact });
is(scalar @{ $d->{choices} // [] }, 2, 'two choices');
ok(pet($_->{message}{content}), "choice $_->{index} obeys") for @{ $d->{choices} // [] };
(undef, $d) = post('/v1/completions', { %text, prompt => ['x', 'A pet:'], guided_regex => 'ab+c', stop => 'bbbbbb' });
like($_->{text}, qr/^a(?:b+c)?$/, "prompt $_->{index} obeys") for @{ $d->{choices} // [] };

(undef, $d) = post('/v1/chat/completions', { %chat, guided_json => $schema, %compact, logprobs => $true,
    top_logprobs => 3 });
my $c = $d->{choices}[0];
ok(pet($c->{message}{content}), 'with logprobs');
my @lps = @{ ($c->{logprobs} // {})->{content} // [] };
is(join('', map { $_->{token} } @lps), $c->{message}{content}, 'which are of its tokens');
ok(!(grep { $_->{logprob} > 0 || @{ $_->{top_logprobs} } != 3 } @lps), 'and such as they should be');
ok(!(grep { $_->{logprob} < -9000 } @lps), 'none of a token that was not allowed');

(undef, $d) = post('/v1/chat/completions', { %chat, guided_json => $schema, max_tokens => 5 });
is($d->{choices}[0]{finish_reason}, 'length', 'cut off: length');
ok(!json($d->{choices}[0]{message}{content}), 'and no JSON');
is(($d->{choices}[0]{incomplete_details} // {})->{reason}, 'max_output_tokens', 'which it says');
{
    my $s = $t->stream('/v1/chat/completions', { %chat, guided_json => $schema, max_tokens => 5 });
    my $last;
    while (defined(my $e = $s->next_event(20))) {
        last if $e eq '[DONE]';
        $last = LLM->decode($e);
    }
    is(($last->{choices}[0]{incomplete_details} // {})->{reason}, 'max_output_tokens', 'streamed, too');
    (undef, my $free) = post('/v1/chat/completions', { %chat, max_tokens => 5 });
    ok($free->{choices}[0]{finish_reason} eq 'length' && !exists $free->{choices}[0]{incomplete_details},
        'free text is cut off as ever');
}
is($d->{usage}{completion_tokens}, 5, 'of as many tokens');
my %plain = (%chat, messages => [{ role => 'user', content => 'Sort: pear, apple, fig' }]);
(undef, $d) = post('/v1/chat/completions', { %plain, response_format => { type => 'text' }, guided_json => undef });
is($d->{choices}[0]{message}{content}, 'In order: apple, fig, pear', 'text is no constraint, null none either');

# --- calls that are demanded --------------------------------------------------------

my $weather = { type => 'function', function => { name => 'weather',
    description => 'Get the weather of a city', parameters => { type => 'object', additionalProperties => $false,
    properties => { city => { type => 'string', maxLength => 20 } }, required => ['city'] } } };
my $count = { type => 'function', function => { name => 'count', parameters => { type => 'object',
    properties => { to => { type => 'integer', minimum => 0, maximum => 999 } }, required => ['to'],
    additionalProperties => $false } } };
my %story = (%chat, messages => [{ role => 'user', content => 'Tell me a short story.' }],
    tools => [$weather, $count]);
my $named = { type => 'function', function => { name => 'count' } };

sub call_ok { # are these arguments what the function takes?
    my ($f) = @_;
    my $args = json($f->{arguments} // '') // {};
    return join(' ', keys %$args) eq 'city' && !ref $args->{city} if $f->{name} eq 'weather';
    return join(' ', keys %$args) eq 'to' && $args->{to} >= 0 && $args->{to} <= 999;
}

sub streamed_calls {
    my ($body) = @_;
    my $s = $t->stream('/v1/chat/completions', { %$body });
    my (@calls, $finish);
    while (defined(my $e = $s->next_event(20))) {
        last if $e eq '[DONE]';
        for my $c (@{ LLM->decode($e)->{choices} // [] }) {
            $finish = $c->{finish_reason} // $finish;
            for (@{ $c->{delta}{tool_calls} // [] }) {
                my $to = $calls[$_->{index}] //= { name => $_->{function}{name}, arguments => '' };
                $to->{arguments} .= $_->{function}{arguments};
            }
        }
    }
    return ($finish, @calls);
}

my $allowed = { type => 'allowed_tools', allowed_tools => { mode => 'required',
    tools => [{ type => 'function', function => { name => 'count' } }] } };

for my $case (['required', 'required', 'tool_calls'], ['named', $named, 'stop'],
    ['allowed', $allowed, 'tool_calls']) {
    my ($what, $choice, $end) = @$case;
    (undef, $d) = post('/v1/chat/completions', { %story, tool_choice => $choice });
    my $c = $d->{choices}[0];
    my @calls = map { $_->{function} } @{ $c->{message}{tool_calls} // [] };
    cmp_ok(@calls, '>=', 1, "$what: a call") or diag(LLM->encode($d));
    is($c->{finish_reason}, $end, "$what: the end");
    ok(!(grep { !call_ok($_) } @calls), "$what: its arguments") or diag(LLM->encode(\@calls));
    ok(!defined $c->{message}{content}, "$what: nothing is said");
    my ($finish, @streamed) = streamed_calls({ %story, tool_choice => $choice });
    is($finish, $end, "$what: streamed: the end");
    is_deeply(\@streamed, \@calls, "$what: streamed: the same");
    is("@{[ map { $_->{name} } @calls ]}", 'count', 'named: that one, once') if $what eq 'named';
    is(scalar(grep { $_->{name} ne 'count' } @calls), 0, 'allowed: no other one') if $what eq 'allowed';
}
my @strict = (tools => [{ %$weather, function => { %{ $weather->{function} }, strict => $true } }]);
(undef, $d) = post('/v1/chat/completions', { %chat, @strict,
    messages => [{ role => 'user', content => 'What is the weather in Paris?' }] });
is($d->{choices}[0]{finish_reason}, 'tool_calls', 'strict: the model calls');
ok(call_ok($d->{choices}[0]{message}{tool_calls}[0]{function}), 'as the schema says') or diag(LLM->encode($d));
(undef, $d) = post('/v1/chat/completions', { %story, @strict });
is($d->{choices}[0]{finish_reason}, 'stop', 'strict: or does not');
like($d->{choices}[0]{message}{content} // '', qr/^Once upon a time /, 'and says what it would');
(undef, $d) = post('/v1/chat/completions', { %story, guided_choice => ['yes', 'no'] });
like($d->{choices}[0]{message}{content} // '', qr/^(?:yes|no)$/, 'auto: a constraint goes before calls');

# --- refused by name ------------------------------------------------------------------

my $remote = { type => 'object', properties => { a => { '$ref' => 'https://example.com/other.json' } } };
my $format = sub { { type => 'json_schema', json_schema => { name => 'n', schema => $remote, strict => $_[0] } } };
for my $case (
    [{ guided_regex => '(' }, 'guided_regex'],
    [{ guided_regex => '(?<=a)b' }, 'guided_regex'],
    [{ ebnf => 'root ::= nowhere' }, 'ebnf'],
    [{ guided_json => '{' }, 'guided_json'],
    [{ guided_json => $remote }, 'guided_json', qr/\$ref/],
    [{ response_format => $format->($true) }, 'response_format.json_schema', qr/\$ref/],
    [{ structural_tag => { structures => [], triggers => [5] } }, 'structural_tag'],
    [{ guided_regex => 'x', guided_choice => ['x'] }, 'guided_choice', qr/guided_regex and guided_choice/],
    [{ tools => [$weather], tool_choice => 'required', regex => 'x' }, 'tool_choice', qr/regex and tool_choice/],
    [{ guided_choice => [] }, 'guided_choice'],
) {
    my ($fields, $param, $says) = @$case;
    for my $stream ($false, $true) {
        my ($status, $d) = post('/v1/chat/completions', { %chat, %$fields, stream => $stream });
        is("$status " . ($d->{error}{param} // ''), "400 $param", "refused: $param");
        like($d->{error}{message} // '', $says, 'and says why') if $says;
    }
}
(undef, $d) = post('/v1/chat/completions', { %chat, response_format => $format->($false), max_tokens => 400 });
ok(!$d->{error}, 'not strict: what can be enforced');

# --- grammars that take their time -----------------------------------------------------

# an automaton of 2^40 states: given up, and meanwhile others are served
my %slow = (%chat, guided_regex => '(?:[ab]*a[ab]{40}c)+');
my $start = time;
my @slow = map { $t->stream('/v1/chat/completions', { %slow }) } 1 .. 3;
my ($status) = post('/v1/completions', { %text, max_tokens => 3 });
is($status, 200, 'others are served');
my @ends = map { $_->whole(30) } @slow;
is(join(' ', map { $_->{status} } @ends), '400 400 400', 'a grammar that is too large is refused');
is(LLM->decode($ends[0]{body})->{error}{param}, 'guided_regex', 'by name');
cmp_ok(time - $start, '<', 20, 'and in time');
ok($t->pool_is_full, 'nothing is left of them');

for my $after (0, 0.05, 0.3) {
    my @s = map { $t->stream('/v1/chat/completions', { %slow, guided_regex => "$slow{guided_regex}$after" }) } 1 .. 2;
    sleep $after;
    $_->close for @s;
    ok($t->pool_is_full(20), "a client left after $after s: nothing is left of it");
}
obeys('and then', { guided_regex => '[A-Z]{2}-\d{3}' }, $plate);

$t->done;
