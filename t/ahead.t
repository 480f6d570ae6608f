#!/usr/bin/env perl
# Catches: an answer that depends on whether steps are planned ahead, and an
# engine that goes on computing for texts that have ended.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $model = LLM->demo_name;
my @engine = ('--model', LLM->demo, qw(--block_tokens 8 --batch_tokens 32 --batch_rows 12));
my $t = LLM->new(engine => [@engine], workers => 1);

my @prompts = map { "The $_ of the server is" } qw(page log key port metrics);
my %few = (max_tokens => 20, logprobs => 3);
my @asked = (
    { prompt => \@prompts, temperature => 0, %few },
    { prompt => \@prompts, temperature => 1, seed => 7, n => 2, %few },
    { prompt => \@prompts, temperature => 0, stop => [ 'e', 'conf' ], max_tokens => 40 },
    { prompt => \@prompts, temperature => 0.8, seed => 3, presence_penalty => 1,
        frequency_penalty => 0.5, ignore_eos => \1, %few },
    { prompt => \@prompts, temperature => 0, repetition_penalty => 1.3, %few },
    { prompt => $prompts[0] x 8, temperature => 0, echo => \1, %few },
    { prompt => \@prompts, echo => \1, logprobs => 2, max_tokens => 0 },
);

sub answers {
    my @all;
    for my $body (@asked) {
        my $r = $t->post('/v1/completions', { model => $model, %$body });
        is($r->{status}, 200, 'answered') or diag($r->{body});
        my $a = $t->decode($r->{body});
        push @all, $t->encode([ $a->{choices}, $a->{usage} ]);
    }
    return @all;
}

my @want = answers();
is($t->metric('discarded_rows'), 0, 'nothing is planned ahead');
$t->stop(engine => 'TERM');

$t->{engine} = [@engine, qw(--planning_depth 1)];
$t->start_engine;
$t->wait_ready;
my @got = answers();
is($got[$_], $want[$_], "the same answer, $_") for 0 .. $#asked;
my $rows = $t->metric('discarded_rows');
cmp_ok($rows, '>', 0, 'who ended was in the next step already');
cmp_ok($rows, '<', 80, 'once each at most');
is($t->metric('blocks_private'), 0, 'and no block is held for it');

$t->done;
