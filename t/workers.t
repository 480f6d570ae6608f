#!/usr/bin/env perl
# One worker was taken over and does whatever a worker can do with its socket
# and its segment (tests/hostile_worker.c), while another, an honest nginx, is
# being served: its clients must not notice, and the engine must live.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $build = LLM->build;
my $program = "$build/hostile_worker";
plan skip_all => "no $program" if !-x $program;
my $seconds = $ENV{LLM_LONG} ? 20 : 1.5;

# a socket of its own modes: whoever may connect is a worker
my $t = LLM->new(workers => 1, engine => [qw(--device null --model_name m
    --step_min 1ms --context 20000 --kv_memory 2g --credit_max 64k
    --requests 256 --slots 300)]);
my $engine = $t->{pids}{engine};

sub hostile { # starts one; its pid
    my ($mode, $seed) = @_;
    my $pid = $t->_spawn("hostile$mode", "$t->{dir}/hostile.log", $program,
        $t->{socket}, $mode, $seconds, $seed // 1);
    return $pid;
}

sub stream {
    $t->stream('/v1/completions', { model => 'm', prompt => 'x', max_tokens => $_[0] });
}

my $want = stream(200)->text;
ok(length $want, 'what a client gets in peace');

for my $mode (qw(silent garbage churn flood scribble records greedy hog reuse)) {
    # one stream lasts over the whole attack, and others come and go
    my $long = stream(19000);
    $long->next_event for 1 .. 5;
    my $pid = hostile($mode);
    my ($n, $same, $slowest, $read, $end) = (0, 0, 0, 0, time + $seconds);
    my ($list, $text) = ('', '');
    while (time < $end) {
        my $start = time;
        $same++ if stream(200)->text eq $want;
        if ($mode =~ /^(?:greedy|hog)$/ && $list !~ /hostile/) {
            $list = $t->get('/status')->{body};
            $text = `timeout 5 $build/llm-top -1 -d 0.1 $t->{socket} 2>&1`;
        }
        $n++;
        $slowest = time - $start if time - $start > $slowest;
        for (1 .. 20) { defined $long->next_event(5) or last if $read++ < 2000 }
    }
    ok(kill(0, $engine) && waitpid($engine, POSIX::WNOHANG()) == 0, "$mode: the engine lives")
        or last;
    is($same, $n, "$mode: $n streams as in peace");
    if ($list) { # whoever it says that it is
        ok((grep { $_->{tenant} eq "hostile\"\x{1b}[2J\x{fffd}" }
            @{ (eval { LLM->decode($list) } // {})->{engines}[0]{requests} }), "$mode: is listed")
            or diag($list);
        like($text, qr/hostile"\?\[2J\?/, "$mode: llm-top names it");
        unlike($text, qr/[\x00-\x09\x0b-\x1f\x7f]/, "$mode: and obeys nothing");
    }
    cmp_ok($slowest, '<', 3, sprintf('%s: the slowest took %.2f s', $mode, $slowest));
    ok($long->goes_on, "$mode: the long one goes on");
    $long->close;
    $t->reap("hostile$mode", $seconds + 10);

    # it is gone, and all that it held with it
    ok($t->pool_is_full(10), "$mode: nothing of it is left");
}

# an honest worker gets in, however many wait at the door
my $pid = hostile('silent');
sleep 0.3;
my $start = time;
$t->reload;
$t->wait_ready(10);
cmp_ok(time - $start, '<', 1.5, 'a new worker attaches through a silent crowd');
$t->reap('hostilesilent', $seconds + 10);


# and none of that fills the disk
cmp_ok(length $t->engine_log, '<', 500_000, 'the log is bounded');

diag(LLM::_slurp("$t->{dir}/hostile.log")) if $ENV{LLM_KEEP};

# nor can it keep the engine from ending in time
{
    my $u = LLM->new(no_nginx => 1, engine => [qw(--device null --model_name m
        --step_min 1ms --drain_timeout 1s)]);
    my @modes = qw(records flood scribble hog silent);
    $u->_spawn($_, "$u->{dir}/hostile.log", $program, $u->{socket}, $_, 10) for @modes;
    sleep 1;
    my $start = time;
    $u->signal(engine => 'TERM');
    my $status = $u->reap('engine', 10);
    is($status, 0, sprintf('the engine ends in the midst of it, in %.1f s', time - $start));
    like($u->engine_log, qr/exit\n\z/, 'as it should');
    $u->stop($_, 'TERM') for @modes;
    $u->clean_up;
}

# a real tokenizer: prompts without end from one delay no other's short one
{
    my $u = LLM->new(workers => 1, engine => ['--model', LLM->demo]);
    local $ENV{MODEL} = LLM->demo_name;
    $u->_spawn('hostileprompts', "$u->{dir}/hostile.log", $program,
        $u->{socket}, 'prompts', $seconds + 1);
    sleep 1;
    my ($n, $slowest, $end) = (0, 0, time + $seconds);
    while (time < $end) {
        my $start = time;
        my $r = $u->post('/v1/completions', { model => LLM->demo_name, prompt => 'Once',
            max_tokens => 3 });
        $n += $r->{status} == 200;
        $slowest = time - $start if time - $start > $slowest;
    }
    cmp_ok($n, '>', 2, sprintf('prompts: %d short ones, the slowest took %.2f s', $n, $slowest));
    $u->reap('hostileprompts', $seconds + 10);
    $u->stop($_, 'TERM') for qw(nginx engine);
    $u->clean_up;
}

$t->done;
