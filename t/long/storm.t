#!/usr/bin/env perl
# A minute of everything at once: sixty clients, a third of which leave in the
# middle, reloads, workers and engines killed.  Nothing leaks, nothing hangs,
# nothing is logged at alert, and afterwards all is served as before.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{LLM_STORM} // 60;
srand(my $seed = $ENV{LLM_SEED} // 1);
diag("seed $seed, $seconds s");

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 2ms
    --context 4096 --kv_memory 64m --drain_timeout 1s)], workers => 3);
$t->allow(qr/exited on signal 9/);

my %count;
my @open;
my ($end, $next_fault) = (time + $seconds, time + 1);

sub open_one {
    my $s = eval { $t->stream('/v1/completions', { model => 'm',
        prompt => 'x' x int rand 2000, max_tokens => 1 + int rand 300,
        n => 1 + int rand 3 }) } or return $count{refused}++;
    $s->{leave} = rand() < 0.33 ? 1 + int rand 40 : 0;
    $s->{since} = time;
    push @open, $s;
    $count{opened}++;
}

sub fault {
    my $what = ('reload', 'worker', 'reload', 'engine', 'drain')[rand 5];
    $count{$what}++;
    if ($what eq 'reload') {
        $t->signal(nginx => 'HUP');
    } elsif ($what eq 'worker') {
        my @w = $t->pids;
        kill KILL => $w[rand @w] if @w;
    } else {
        $t->signal(engine => $what eq 'engine' ? 'KILL' : 'TERM');
        $t->reap('engine', 10) // $count{stuck}++;
        $t->start_engine;
    }
    $next_fault = time + 0.3 + rand 2;
}

while (time < $end) {
    open_one() while @open < 60;
    fault() if time > $next_fault;
    my $sel = IO::Select->new(map { $_->socket } @open);
    my %ready = map { $_ => 1 } $sel->can_read(0.05);
    my @left;
    for my $s (@open) {
        my $over = 0;
        if ($ready{ $s->socket }) {
            $over = !$s->fill(0);
            my $n = () = $s->{raw} =~ /^data: /mg;
            $over ||= $s->{leave} && $n >= $s->{leave};
            $count{done}++, $over = 1 if $s->{raw} =~ /\[DONE\]/;
        }
        $count{late}++ if !$over && time - $s->{since} > 40;
        $over ? $s->close : push @left, $s;
    }
    @open = @left;
}
$_->close for @open;

diag(join ', ', map { "$_ $count{$_}" } sort keys %count);
is($count{stuck} // 0, 0, 'every engine ended when told to');
is($count{late} // 0, 0, 'no stream hung');
cmp_ok($count{done} // 0, '>', $seconds, 'many were served whole');
$t->wait_ready(20);
ok($t->wait_for(sub { $t->pids == 3 }, 30), 'three workers are left')
    or diag(join ' ', $t->pids);
is($t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => 3 })
    ->{status}, 200, 'served as before');
$t->done;
