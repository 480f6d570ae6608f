#!/usr/bin/env perl
# One model in two processes: the answers are those of one, token for token; a
# rank that dies, stops or differs ends what runs with one sentence and a proper
# error, and all is well again when both have been started anew; the end of
# rank 0 is the end of the other.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $at = '127.0.0.1:' . LLM->free_port;
my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
my $key = '0123456789abcdef' x 2;
open my $f, '>', "$dir/secret" or die $!;
print $f "$key\n";
close $f or die $!;

my @common = ('--model', LLM->demo, qw(--kv_type f32 --tensor_parallel 2),
    '--tensor_parallel_address', $at, '--tensor_parallel_secret', "$dir/secret",
    qw(--tensor_parallel_silence 3s --tensor_parallel_wait 20s));
my ($log, $follower) = ("$dir/rank1.log");

# Starts rank 1; what it says is in $log from then on.
sub follower {
    my (@more) = @_;
    unlink $log;
    $follower = fork() // die "fork: $!";
    return if $follower;
    open STDIN, '<', '/dev/null';
    open STDOUT, '>>', $log;
    open STDERR, '>>', $log;
    exec LLM->build . '/llm-engine', qw(--threads 1), @common, @more or POSIX::_exit(127);
}

END { kill KILL => $follower if $follower }

my $t; # below: rank 0 is started when rank 1 waits for it

# How rank 1 ended: its wait status, undef if it goes on.
sub ended {
    my ($timeout) = @_;
    my $st;
    my $end = time + ($timeout // 10);
    until (waitpid($follower, POSIX::WNOHANG()) == $follower) {
        return undef if time > $end;
        sleep 0.02;
    }
    $st = $?;
    $follower = 0;
    return $st;
}

sub last_line { (split /\n/, LLM::_slurp($_[0]))[-1] // '' }

# rank 1 waits for rank 0, which is not there yet
follower(qw(--rank 1));
$t = LLM->new(engine => [@common, qw(--rank 0)]);
ok(kill(0, $follower), 'rank 1 runs');
like($t->engine_log, qr/rank 1 of 2 has joined/, 'and has joined');

# --- the same answers
my %greedy = (model => LLM->demo_name, temperature => 0, max_tokens => 40);
my @chats = grep { $_->{margin} >= 0.05 } @{ $t->golden->{chats} };
cmp_ok(@chats, '>=', 3, 'conversations whose replies are known');

sub same {
    my ($what, @some) = @_;
    for my $chat (@some) {
        my $c = $t->decode($t->post('/v1/chat/completions',
            { %greedy, max_tokens => 200, messages => $chat->{messages} })->{body});
        is($c->{choices}[0]{message}{content}, $chat->{reply},
            "$what: $chat->{messages}[-1]{content}");
    }
}

same('two processes', @chats[0 .. ($#chats < 5 ? $#chats : 5)]);

# some at once, drawn with a seed: as often as one asks
my %drawn = (model => LLM->demo_name, prompt => 'A worker', seed => 7, temperature => 1,
    max_tokens => 60, logit_bias => { 5 => -3 }, n => 3);
my @texts = map {
    join '|', map { $_->{text} } @{ $t->decode($t->post('/v1/completions', \%drawn)->{body})->{choices} }
} 1 .. 2;
is($texts[0], $texts[1], 'drawn tokens are the same again');

# --- a rank dies in the middle
sub stream {
    my $s = $t->stream('/v1/completions',
        { model => LLM->demo_name, prompt => 'nginx', max_tokens => 900, ignore_eos => JSON::PP::true });
    defined $s->next_event(10) or die 'no event';
    return $s;
}

# After a fault: the stream has a proper error, rank 0 ends with one line.
sub broken {
    my ($what, $s, $why) = @_;
    $s->events(10);
    ok(!$s->{done_seen}, "$what: the stream does not end as if all were well");
    like($s->{last} // '', qr/^\{"error"/, "$what: it ends with an error");
    $s->close;
    my $st = $t->reap('engine', 10);
    is($st, 256, "$what: rank 0 exits with 1");
    like(last_line("$t->{dir}/engine.log"), $why, "$what: and says why");
    like($t->post('/v1/completions', { %greedy, prompt => 'x' })->{status}, qr/^503$/,
        "$what: 503 meanwhile");
}

sub up {
    my ($what) = @_;
    follower(qw(--rank 1));
    $t->start_engine;
    $t->wait_ready;
    same("$what, started again", $chats[0]);
}

my $s = stream();
kill KILL => $follower;
my $start = time;
broken('rank 1 was killed', $s, qr/: rank 1 has gone/);
cmp_ok(time - $start, '<', 3, 'noticed at once');
ended();
up('rank 1');

$s = stream();
kill STOP => $follower;
broken('rank 1 was stopped', $s, qr/: rank 1 has not answered for 3000 ms/);
kill CONT => $follower;
is(ended(), 256, 'it ends when it runs again');
up('rank 1');

$s = stream();
$t->signal(engine => 'KILL');
$t->reap('engine');
is(ended(), 256, 'rank 0 was killed: rank 1 exits with 1');
like(last_line($log), qr/^llm-engine: rank 0 has gone$/, 'and says why');
$s->events(10);
ok(!$s->{done_seen}, 'the stream ends');
$s->close;
up('rank 0');

# --- a signal to all: what runs is brought to its end first
$s = $t->stream('/v1/completions', { %greedy, prompt => 'nginx', max_tokens => 300,
    ignore_eos => JSON::PP::true });
$s->next_event(10);
kill TERM => $follower;
sleep 0.1;
$t->signal(engine => 'TERM');
$s->events(20);
ok($s->{done_seen}, 'SIGTERM to both: the stream ends as it should');
$s->close;
is($t->reap('engine', 10), 0, 'rank 0 exits with 0');
is(ended(), 0, 'and rank 1');
like(last_line($log), qr/exit with rank 0$/, 'with it');

# --- by mpirun and by srun, and without an option for the rank
for my $names ([qw(OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE)], [qw(SLURM_PROCID SLURM_NTASKS)]) {
    local $ENV{LLM_RANKS_SECRET} = $key;
    local $ENV{ $names->[1] } = 2;
    { local $ENV{ $names->[0] } = 1; follower() }
    local $ENV{ $names->[0] } = 0;
    $t->start_engine;
    $t->wait_ready;
    same("by $names->[0]", $chats[0]);
    $t->stop(engine => 'TERM');
    is(ended(), 0, 'rank 1 ends with it');
}

# --- one that differs is told so, and the right one joins in its place
follower(qw(--rank 1 --context 64));
my $pid = $t->_spawn(engine => "$t->{dir}/engine.log", LLM->build . '/llm-engine', '--listen',
    $t->{socket}, qw(--threads 1 --rank 0), $> ? () : qw(--socket_group www-data), @common);
is(ended(), 256, 'another context: exit 1');
like(last_line($log), qr/^llm-engine: rank 1 has another context than rank 0: expected \d+, found 64$/,
    'in one sentence');
follower(qw(--rank 1));
$t->wait_for(sub { -S $t->{socket} }, 20);
$t->wait_ready;
same('then', $chats[0]);

# --- what cannot be
sub refused {
    my ($what, $like, @args) = @_;
    my $out = `@{[ LLM->build ]}/llm-engine --listen $dir/e.sock --device null @args 2>&1`;
    is($?, 256, "$what: exit 1") or diag($out);
    like($out, $like, "$what: says why");
}

refused('no secret', qr/^llm-engine: ranks in several processes need a secret: /,
    qw(--tensor_parallel 2 --rank 1), '--tensor_parallel_address', $at);
refused('no rank', qr/^llm-engine: tensor_parallel_address needs a rank/,
    qw(--tensor_parallel 2), '--tensor_parallel_address', $at);
refused('a rank too high', qr/found rank 2 of 2$/m,
    qw(--tensor_parallel 2 --rank 2), '--tensor_parallel_address', $at);

$t->done;
