#!/usr/bin/env perl
# Twenty readers that have stopped reading cost the others nothing: credit
# stalls their sampling, send_timeout ends them, and memory stays.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{LLM_LONG} ? 60 : 8;
my $t = LLM->new(listen => 'sndbuf=4k', workers => 1,
    engine => [qw(--device null --model_name m --context 200000
        --kv_memory 512m --step_min 1ms)],
    location => 'send_timeout ' . ($seconds + 3) . 's; llm_output_buffer 4k;');

my %endless = (model => 'm', prompt => 'x', max_tokens => 190000);

# events that four well-behaved readers get in some seconds
sub rate {
    my ($for) = @_;
    my @s = map { $t->stream('/v1/completions', { %endless }) } 1 .. 4;
    $_->next_event for @s;
    my ($start, $n) = (time, 0);
    my $sel = IO::Select->new(map { $_->socket } @s);
    while (time - $start < $for) {
        for my $fh ($sel->can_read(0.1)) {
            my ($one) = grep { $_->socket == $fh } @s;
            $one->fill(0);
            $n += () = $one->{raw} =~ /"text"/g;
            $one->{raw} = '';
        }
    }
    $_->close for @s;
    return $n / (time - $start);
}

my $free = rate(3);
ok($t->pool_is_full, 'readers gone');
my @stalled = map { $t->stream('/v1/completions', { %endless }, rcvbuf => 4096) } 1 .. 20;
$_->next_event for @stalled;
ok($t->wait_for(sub { $t->metric('requests_stalled') == 20 }, 20), 'twenty are stalled')
    or diag($t->encode($t->status));
cmp_ok($t->metric('credit_stalls'), '>=', 20, 'credit stalls counted');

my ($worker) = $t->pids;
my $engine = $t->{pids}{engine};
my ($w0, $e0) = ($t->rss_kb($worker), $t->rss_kb($engine));
my ($cw, $ce, $when) = ($t->cpu_s($worker), $t->cpu_s($engine), time);
my $tokens = $t->metric('completion_tokens');
sleep($seconds > 30 ? $seconds - 10 : 3);
is($t->metric('completion_tokens'), $tokens, 'nothing is sampled for them');
cmp_ok(($t->cpu_s($worker) - $cw) / (time - $when), '<', 0.1, 'the worker sleeps');
cmp_ok(($t->cpu_s($engine) - $ce) / (time - $when), '<', 0.1, 'the engine sleeps');
cmp_ok($t->rss_kb($worker) - $w0, '<', 1024, 'worker memory stays');
cmp_ok($t->rss_kb($engine) - $e0, '<', 1024, 'engine memory stays');

# of this machine's other work it is no judge
my $beside = rate(3);
cmp_ok($beside, '>', ($ENV{LLM_LONG} ? 0.95 : 0.5) * $free, sprintf
    'others beside them: %.0f of %.0f events/s', $beside, $free);

ok($t->wait_for(sub { $t->metric('requests_held') == 0 }, $seconds + 15),
    'send_timeout ended them');
cmp_ok(scalar(() = $t->error_log =~ /timed out/g), '>=', 20, 'as the log says');
ok($t->pool_is_full, 'all blocks are back');

$t->done;
