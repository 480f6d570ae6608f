#!/usr/bin/env perl
# More requests with something to write than a worker writes in one turn: none
# is forgotten, also when their engine dies before the worker gets round to
# them.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $n = 600; # a turn makes 256 writes

my $t = LLM->new(workers => 1, main => 'worker_rlimit_nofile 4096;');
my $worker;

# Starts a fake engine, and so many streams that it answers while the worker
# is stopped; wait is what it says of each then.
sub answered {
    my ($wait, @options) = @_;
    my $log = "$t->{dir}/fake.log";
    unlink $log;
    my $pid = $t->_spawn(fake => $log, LLM->build . '/fake_engine', $t->{socket},
        qw(--model m --slots 1024 --tokens 3 --hold), @options);
    $t->wait_for(sub { $t->get('/ready')->{status} == 200 });
    ($worker) = $t->pids if !$worker;
    my @streams = map {
        $t->stream('/v1/completions', { model => 'm', prompt => 'x', max_tokens => 3 })
    } 1 .. $n;
    my $count = sub { scalar(() = LLM::_slurp($log) =~ /^$_[0] /mg) };
    $t->wait_for(sub { $count->('submit') == $n }, 20);
    kill 'STOP', $worker;
    is($count->('done'), 0, 'all have asked, none is answered');
    kill 'USR1', $pid;
    $t->wait_for(sub { $count->($wait) == $n }, 20);
    return @streams;
}

sub ends {
    my (@streams) = @_;
    my %ends;
    for my $s (@streams) {
        my @events = $s->events(20);
        my $words = join '', map { $_->{choices} ? $_->{choices}[0]{text} : () } @events;
        my $error = ($events[-1] // {})->{error};
        $ends{ $words . ($error ? $error->{code} : '') . ($s->{done_seen} ? ' DONE' : '')
            . ($s->{whole} ? '' : ' cut') }++;
    }
    return \%ends;
}

my @streams = answered('done');
kill 'CONT', $worker;
is_deeply(ends(@streams), { 'w0 w1 w2  DONE' => $n }, 'all are answered');
$t->stop('fake', 'KILL');

@streams = answered('done');
$t->stop('fake', 'KILL');
kill 'CONT', $worker;
is_deeply(ends(@streams), { 'w0 w1 w2  DONE' => $n },
    'all are answered by an engine that is dead by then');

@streams = answered('silent', '--never-done');
$t->stop('fake', 'KILL');
kill 'CONT', $worker;
is_deeply(ends(@streams), { 'w0 w1 w2 engine_lost' => $n },
    'all get their words, and that there are no more');

is(($t->pids)[0], $worker, 'the worker never died');

$t->done;
