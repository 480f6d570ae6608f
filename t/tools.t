#!/usr/bin/env perl
# Catches: a call that stays in the text, or text that becomes one; arguments
# that come out otherwise streamed than whole; a wrong end; a call that the
# client did not ask for; a declaration that is let through.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $name = LLM->demo_name;
my $t = LLM->new(engine => ['--model', LLM->demo], workers => 1);

my $weather = { type => 'function', function => { name => 'weather',
    description => 'Get the weather of a city', parameters => { type => 'object',
    properties => { city => { type => 'string' } }, required => ['city'] } } };
my $ask = { role => 'user', content => 'What is the weather in Paris?' };
my %greedy = (model => $name, temperature => 0, max_tokens => 100, messages => [$ask]);

sub ask {
    my (%more) = @_;
    my $r = $t->post('/v1/chat/completions', { %greedy, %more });
    return ($r->{status}, LLM->decode($r->{body}));
}

sub streamed {
    my (%more) = @_;
    my $s = $t->stream('/v1/chat/completions', { %greedy, %more });
    my (@calls, $content, $finish, $lps);
    while (defined(my $e = $s->next_event(20))) {
        last if $e eq '[DONE]';
        for my $c (@{ LLM->decode($e)->{choices} }) {
            $content .= $c->{delta}{content} // '';
            $lps += @{ ($c->{logprobs} // {})->{content} // [] };
            $finish = $c->{finish_reason} // $finish;
            for my $call (@{ $c->{delta}{tool_calls} // [] }) {
                my $to = $calls[$call->{index}] //= { first => $call };
                $to->{arguments} .= $call->{function}{arguments};
            }
        }
    }
    return ($content, $finish, \@calls, $lps);
}

my ($status, $d) = ask(tool_choice => 'none');
is($status, 200, 'none: answered');
ok(!exists $d->{choices}[0]{message}{tool_calls}, 'and no call');

($status, $d) = ask(tools => [$weather]);
my $c = $d->{choices}[0];
is($c->{finish_reason}, 'tool_calls', 'the model calls');
is(scalar @{ $c->{message}{tool_calls} // [] }, 1, 'once');
my $call = $c->{message}{tool_calls}[0];
is($call->{function}{name}, 'weather', 'what was declared');
is_deeply(LLM->decode($call->{function}{arguments}), { city => 'Paris' }, 'with its argument');
is($call->{type}, 'function', 'its type');
like($call->{id}, qr/^[0-9A-Za-z]{9}$/, 'its id');
ok(!defined $c->{message}{content}, 'and says nothing');

my ($content, $finish, $calls, $lps) = streamed(tools => [$weather]);
is($content, '', 'streamed: nothing is said');
is($finish, 'tool_calls', 'streamed: the end');
is(scalar @$calls, 1, 'streamed: once');
is($calls->[0]{first}{function}{name}, 'weather', 'streamed: the name comes first');
is($calls->[0]{first}{type}, 'function', 'with the type');
is($calls->[0]{arguments}, $call->{function}{arguments}, 'streamed: the same arguments');

(undef, my $whole) = ask(tools => [$weather], logprobs => $true);
($content, $finish, $calls, $lps) = streamed(tools => [$weather], logprobs => $true);
is($calls->[0]{arguments}, $call->{function}{arguments}, 'with logprobs');
is($lps, scalar @{ $whole->{choices}[0]{logprobs}{content} }, 'one for each token, streamed or not');

(undef, $d) = ask(tools => [$weather], max_tokens => $d->{usage}{completion_tokens} - 8);
is($d->{choices}[0]{finish_reason}, 'length', 'cut off: length');

# one call is the end, and its tokens are all that is paid for
(undef, $d) = ask(tools => [$weather], parallel_tool_calls => $false);
is($d->{choices}[0]{finish_reason}, 'tool_calls', 'one call: the end');
is_deeply($d->{choices}[0]{message}{tool_calls}[0]{function}, $call->{function}, 'one call: the same');

# what came of it goes back
(undef, $d) = ask(tools => [$weather], messages => [$ask, $c->{message},
    { role => 'tool', tool_call_id => $call->{id}, content => '{"sky": "sunny", "degrees": 21}' }]);
like($d->{choices}[0]{message}{content} // '', qr/sunny|21/, 'the result is told');
is($d->{choices}[0]{finish_reason}, 'stop', 'and that is the end');

# refused by name
for my $case (
    [{ tool_choice => 'required', tools => [] }, 'tool_choice'],
    [{ tool_choice => 'required', regex => 'x' }, 'tool_choice'],
    [{ tool_choice => { type => 'function', function => { name => 'other' } } }, 'tool_choice.function.name'],
    [{ tools => [$weather, $weather] }, 'tools[1].function.name'],
    [{ tools => [{ type => 'function', function => { name => 'a b' } }] }, 'tools[0].function.name'],
    [{ tools => [{ type => 'function', function => { name => 'a', parameters => [] } }] },
        'tools[0].function.parameters'],
) {
    ($status, $d) = ask(tools => [$weather], %{ $case->[0] });
    is("$status $d->{error}{param}", "400 $case->[1]", "refused: $case->[1]");
}

# by the option it stays text
$t->stop('engine', 'TERM');
$t->start_engine('--tool_calls', 'off');
$t->wait_ready;
(undef, $d) = ask(tools => [$weather]);
like($d->{choices}[0]{message}{content}, qr/^<tool_call>/, 'off: in the model\'s own words');
is($d->{choices}[0]{finish_reason}, 'stop', 'off: the end');

$t->done;
