#!/usr/bin/env perl
# A reader that is always a little late: its text never stops waiting, as there
# is new text before the old has gone.  It gets all of it all the same.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(listen => 'sndbuf=4k', workers => 1,
    engine => [qw(--device null --model_name m --context 8192)],
    location => 'llm_output_buffer 16k;');
my ($worker) = $t->pids;
my %chat = (model => 'm', messages => [{ role => 'user', content => 'x' }],
    max_tokens => $ENV{LLM_LONG} ? 4000 : 1500, # far more than is held of them
    logprobs => JSON::PP::true, top_logprobs => 5);

# with logprobs an event is several times what is held of it
my $whole = $t->decode($t->post('/v1/chat/completions', { %chat })->{body})->{choices}[0];
for my $n (1, 3) {
    my $stalls = $t->metric('credit_stalls');
    my $s = $t->stream('/v1/chat/completions', { %chat, n => $n }, rcvbuf => 4096);
    my (@text, @logprobs, $last);
    while (defined(my $e = $s->next_event(20))) {
        $last = $e;
        next if $e eq '[DONE]';
        for my $c (@{ LLM->decode($e)->{choices} // [] }) {
            $text[$c->{index}] .= $c->{delta}{content} // '';
            push @{ $logprobs[$c->{index}] }, @{ ($c->{logprobs} // {})->{content} // [] };
        }
    }
    is($last, '[DONE]', "n $n: a reader that is late gets all of it");
    is(scalar(grep { $_ eq $whole->{message}{content} } @text), $n, "n $n: the text");
    is_deeply($logprobs[$_], $whole->{logprobs}{content}, "n $n: logprobs of choice $_")
        for 0 .. $n - 1;
    cmp_ok($t->metric('credit_stalls'), '>', $stalls, "n $n: it was late");
}

is(($t->pids)[0], $worker, 'the worker never died');

$t->done;
