#!/usr/bin/env perl
# Catches: ranks that together say something else than one; an engine of some
# ranks that does not come back from a kill, keeps a block, or loses a stream at
# a reload; blocks that come back from the host in some ranks only; a model that
# cannot be divided and is served all the same.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $model = LLM->demo_name;
my @engine = ('--model', LLM->demo, qw(--kv_type f32 --block_tokens 8));
my $t = LLM->new(engine => [@engine], workers => 1);

my @prompts = map { "The $_ of the server is" } qw(page log key port metrics);
my @asked = (
    { prompt => \@prompts, temperature => 0, max_tokens => 20 },
    { prompt => $prompts[0] x 8, temperature => 0, max_tokens => 30 },
    { prompt => $prompts[1] x 6, temperature => 0, max_tokens => 30, ignore_eos => \1 },
);

sub answers {
    my @all;
    for my $body (@asked) {
        my $r = $t->post('/v1/completions', { model => $model, %$body });
        is($r->{status}, 200, 'answered') or diag($r->{body});
        push @all, map { $_->{text} } @{ $t->decode($r->{body})->{choices} };
    }
    return join "\n", @all;
}

sub again {
    $t->{engine} = [@engine, @_];
    $t->start_engine;
    $t->wait_ready;
}

my $want = answers();
like($t->engine_log, qr/ready: .* thread, /, 'one rank');
unlike($t->engine_log, qr/ ranks, each /, 'and no more');
is($t->metric('ranks'), 1, 'says the metric too');
$t->stop(engine => 'TERM');

again(qw(--tensor_parallel 2));
like($t->engine_log, qr/ready: .*, 2 ranks, each cpu \w+, 1 thread/, 'two ranks');
is($t->metric('ranks'), 2, 'says the metric too');
is(answers(), $want, 'which say the same');

# a stream goes on across a reload, and ends by a kill
my %long = (model => $model, prompt => $prompts[2], temperature => 0,
    max_tokens => 800, ignore_eos => \1);
my $s = $t->stream('/v1/completions', { %long, max_tokens => 200 });
ok(defined $s->next_event, 'a stream');
ok($t->reload, 'reload');
$s->events(30);
ok($s->{done_seen}, 'it is whole');
$s->close;
$s = $t->stream('/v1/completions', \%long);
ok(defined $s->next_event, 'another one');
$t->allow(qr/engine/);
$t->signal(engine => 'KILL');
$t->reap('engine');
$s->events(30);
ok(!$s->{done_seen}, 'it is cut by a kill');
$s->close;
again(qw(--tensor_parallel 2));
is(answers(), $want, 'the next engine says the same');
$t->stop(engine => 'TERM');

# more ranks than processors, steps planned ahead, blocks that go and come back
again(qw(--tensor_parallel 8 --planning_depth 1 --context 256 --kv_memory 4m --kv_host_memory 32m));
is(answers(), $want, 'eight ranks say the same');
for my $i (1 .. 12) {
    $t->post('/v1/completions',
        { %long, prompt => "$i " . $prompts[$i % 5] x 12, max_tokens => 20 });
}
is(answers(), $want, 'and so they do of what was in the host');
cmp_ok($t->metric('host_bytes_in'), '>', 0, 'as some was') or diag($t->get('/metrics')->{body});
ok($t->pool_is_full, 'no block is held');

my $out = `@{[LLM->build]}/llm-engine --listen $t->{dir}/three.sock @engine --tensor_parallel 3 2>&1`;
isnt($?, 0, 'three ranks are not served');
like($out, qr/^llm-engine: tensor_parallel 3: expected a number of heads that it divides, found 8$/m,
    'and it says why');

$t->done;
