#!/usr/bin/env perl
# Sixteen clients that stream at once get byte for byte what each gets alone,
# while others join, leave and abort.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

# a budget smaller than the prompts, so that they go in chunks
my $t = LLM->new(engine => ['--model', LLM->demo, '--batch_tokens', 24,
    '--threads', 2]);

my @start = ('Once upon a time', 'The fox and the owl', 'The dog', 'One day a little cat',
    'In autumn', 'One night', 'A bear called Tom', 'The wind was loud and');
my @prompts = map { my $n = $_; join ' ', map { $start[($n + $_) % @start] }
    0 .. $n % 7 } 0 .. 15;

sub body { { model => LLM->demo_name, prompt => $_[0], temperature => 0,
    max_tokens => 32, @_[1 .. $#_] } }

my @alone = map { $t->stream('/v1/completions', body($_))->text } @prompts;
ok(!(grep { !length } @alone), 'each has a text alone');

# sixteen at once, one process reading them all in turn; between the events
# others come, some of which leave in the middle
my @s = map { $t->stream('/v1/completions', body($_)) } @prompts;
my @text = ('') x @s;
my ($aborted, $whole, @others) = (0, 0);
my $open = @s;
my @done;
while ($open) {
    for my $i (0 .. $#s) {
        next if $done[$i];
        my $e = $s[$i]->next_event;
        if (!defined $e || $e eq '[DONE]') {
            $done[$i] = 1;
            $open--;
            next;
        }
        $text[$i] .= $t->decode($e)->{choices}[0]{text};
    }
    if (@others < 40) {
        my $o = $t->stream('/v1/completions', body($prompts[@others % 16],
            seed => 1, temperature => 1));
        push @others, $o;
        if (@others % 2) {
            $o->next_event;
            $o->close;
            $aborted++;
        }
    }
}
for my $i (0 .. $#s) {
    is($text[$i], $alone[$i], "client $i as alone");
}
for my $o (@others) {
    $whole++ if fileno $o->socket and $o->events && $o->{done_seen};
}
cmp_ok($aborted, '>', 2, "$aborted others left in the middle");
is($whole, @others - $aborted, "$whole others ended");

$t->done;
