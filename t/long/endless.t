#!/usr/bin/env perl
# A stream of hours: a million events, over HTTP/1.1, over TLS and HTTP/2, and
# to a client that is always a little late, leave a worker's memory where it
# was after the first few thousand.  Every link and buffer must be used again.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use LLM;
use POSIX ();
use Test::More;

my $events = $ENV{LLM_EVENTS} // 1_000_000;
my $t = LLM->new(workers => 1,
    engine => ['--device', 'null', '--model_name', 'm', '--context', $events + 100,
        '--kv_memory', '512m'],
    location => 'llm_request_timeout 1h;');
my ($worker) = $t->pids;
my $engine = $t->{pids}{engine};
my %ask = (model => 'm', prompt => 'x', max_tokens => $events + 0, stream => JSON::PP::true);

for my $case (['HTTP/1.1', '--http1.1', "http://127.0.0.1:$t->{port}/v1/completions"],
    ['HTTP/2', '--http2', $t->https('/v1/completions')],
    ['a late reader', '--http1.1', '--limit-rate', '20m', $t->https('/v1/completions')])
{
    my ($name, @args) = @$case;
    my $start = $t->metric('completion_tokens');
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        my $got = $t->curl('-N', '--max-time', 600, '-o', "$t->{dir}/out", '-d',
            $t->encode({ %ask }), @args);
        POSIX::_exit($? ? 1 : 0);
    }
    my $at = sub {
        my $n = $start + $events * shift;
        $t->wait_for(sub { $t->metric('completion_tokens') >= $n }, 120);
        return ($t->rss_kb($worker), $t->rss_kb($engine));
    };
    my ($w0, $e0) = $at->(0.3);
    my ($w1, $e1) = $at->(0.9);
    waitpid $pid, 0;
    is($?, 0, "$name: whole");
    open my $f, '-|', 'tail', '-c', 14, "$t->{dir}/out" or die $!;
    is(join('', <$f>), "data: [DONE]\n\n", "$name: to its last event");
    diag(sprintf '%s: worker %d kB, then %d; engine %d kB, then %d', $name, $w0, $w1, $e0, $e1);
    cmp_ok($w1 - $w0, '<', 512, "$name: the worker's memory stays");
    cmp_ok($e1 - $e0, '<', 2048 + 8 * $events / 1000,
        "$name: the engine's, but for its tokens' ids");
}

$t->done;
