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
open $f, '>', "$dir/system.txt" or die $!;
print $f 'You answer in as few words as you can, and say nothing else.' x 3;
close $f or die $!;

my @common = ('--model', LLM->demo, qw(--kv_type f32 --tensor_parallel 2),
    '--tensor_parallel_address', $at, '--tensor_parallel_secret', "$dir/secret",
    qw(--tensor_parallel_silence 1500ms --tensor_parallel_wait 20s));
my ($log, $follower) = ("$dir/rank1.log");

# what makes steps and copies beside the usual ones
my @more = (qw(--planning_depth 1 --context 512 --kv_memory 4m --kv_host_memory 32m), '--prefix_pin',
    "$dir/system.txt");

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
    fail("rank 1: $_") for LLM::_slurp($log) =~ /^.*(?:Sanitizer|runtime error|Assertion).*$/mg;
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

kill KILL => $follower;
$start = time;
is($t->reap('engine', 10), 256, 'rank 1 was killed while nothing ran: rank 0 exits with 1');
like(last_line("$t->{dir}/engine.log"), qr/: rank 1 has gone/, 'and says why');
cmp_ok(time - $start, '<', 4, 'within a second or two');
ended();
up('rank 1');

$s = stream();
kill STOP => $follower;
broken('rank 1 was stopped', $s, qr/: rank 1 has not answered for 1500 ms/);
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

# --- as Slurm's and mpirun's files in conf/ranks start them, by stand-ins for
# both that start two processes here, end all when one dies, and pass signals on
mkdir "$dir/bin" or die $!;
put("$dir/bin/scontrol", "#!/bin/sh\n[ \"\$*\" = 'show hostnames here,there' ] && printf '127.0.0.1\\nthere\\n'\n");
for (['srun', 'SLURM_PROCID', 'SLURM_NTASKS'], ['mpirun', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE']) {
    put("$dir/bin/$_->[0]", <<"SH");
#!/usr/bin/env perl
use strict; use warnings;
print STDERR "$_->[0] \@ARGV\\n";
shift \@ARGV while \$ARGV[0] =~ /^-|^\\d+\$|,/;
\$ENV{$_->[2]} = 2;
my \@pids = map { my \$rank = \$_; my \$p = fork(); \$p or do { \$ENV{$_->[1]} = \$rank; exec \@ARGV; exit 127 }; \$p } 0, 1;
\$SIG{TERM} = sub { kill TERM => \@pids };
my \$rc = 0;
for (1 .. 2) {
    until (wait() > 0) { }
    next if \$? == 0;
    \$rc ||= \$? >> 8 || 137;
    kill KILL => \@pids;
}
exit \$rc;
SH
}

sub put {
    my ($name, $text) = @_;
    open my $f, '>', $name or die "$name: $!";
    print $f $text;
    close $f or die $!;
    chmod 0755, $name;
}

my %conf = (@common, '--listen', $t->{socket}, '--threads', 1,
    $> ? () : qw(--socket_group www-data));
delete @conf{qw(--tensor_parallel_address --tensor_parallel_secret)};
put("$dir/engine.conf", join '', map { substr($_, 2) . " $conf{$_}\n" } sort keys %conf);

sub starter {
    my ($what, $like, @cmd) = @_;
    local @ENV{qw(CONF ENGINE PORT SECRET PAUSE SLURM_JOB_NODELIST PATH)} = ("$dir/engine.conf",
        LLM->build . '/llm-engine', $at =~ s/.*://r, "$dir/secret", 0.2, 'here,there', "$dir/bin:$ENV{PATH}");
    my $out = "$t->{dir}/starter.log";
    unlink $out, $t->{socket};
    my $pid = $t->_spawn(starter => $out, @cmd);
    # the engine's pid is not ours to know: the workers' log tells of one
    my $engine = sub { ($t->error_log =~ /.* attached: pid (\d+),/s)[0] // 0 };
    my $last = $engine->();
    my $another = sub {
        my $is = $t->wait_for(sub { $engine->() != $last && $engine->() }, 20) or return 0;
        local $t->{pids}{engine} = $last = $is;
        $t->wait_ready;
        return $t->attached;
    };
    ok($another->(), "$what: ready");
    same($what, $chats[0]);
    like(LLM::_slurp($out), $like, "$what: as it is called");

    kill KILL => $last;
    ok($another->(), "$what: rank 0 is killed, and both are started anew");
    same($what, $chats[0]);

    # as scancel does; the stand-in hands it on to both
    kill TERM => map { m{(\d+)} } grep {
        LLM::_slurp("$_/cmdline") =~ m{\Q$dir/bin/\E(?:srun|mpirun)\0}
    } glob '/proc/[0-9]*';
    is($t->reap('starter', 15), 0, "$what: all end with rank 0") or diag(LLM::_slurp($out));
}

starter('Slurm', qr/^srun --kill-on-bad-exit=1 \S+ -c \S+ --tensor_parallel_address 127.0.0.1:\d+$/m,
    LLM->root . '/conf/ranks/slurm.sbatch');
starter('mpirun', qr/^mpirun -n 2 --host 127.0.0.1,there \S+ -c /m,
    LLM->root . '/conf/ranks/mpirun.sh', '127.0.0.1,there');

# --- one that differs is told so, and the right one joins in its place
my $other = LLM::_slurp(LLM->demo);
substr($other, $_ * 32, 1) ^= "\1" for (1 << 20) / 32 .. length($other) / 32 - 1;
put("$dir/other.gguf", $other);
follower(@more, qw(--rank 1 --context 64));
$t->_spawn(engine => "$t->{dir}/engine.log", LLM->build . '/llm-engine', '--listen',
    $t->{socket}, qw(--threads 1 --rank 0), $> ? () : qw(--socket_group www-data), @common, @more);
is(ended(), 256, 'another context: exit 1');
like(last_line($log), qr/^llm-engine: rank 1 has another context than rank 0: expected \d+, found 64$/,
    'in one sentence');
follower(@more, qw(--rank 1 --model), "$dir/other.gguf");
is(ended(), 256, 'another model of the same shape: exit 1');
like(last_line($log), qr/^llm-engine: rank 1 has another model than rank 0$/, 'in one sentence');

follower(qw(--rank 1), @more);
$t->wait_for(sub { -S $t->{socket} }, 20);
$t->wait_ready;
same('then', @chats[0, 1]);
my @long = map {
    $t->decode($t->post('/v1/completions', { %greedy, prompt => "Number $_ is next. " x 15 })->{body})
        ->{choices}[0]{text}
} 1 .. 12, 1, 2;
is($long[12], $long[0], 'a prompt whose blocks went out and came back');
is($long[13], $long[1], 'and another');
same('after all', @chats[0, 1]);
cmp_ok($t->metric($_), '>', 0, $_) for qw(host_blocks_out host_blocks_in blocks_pinned);

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

ok($t->pool_is_full, 'every block is free or cached at the end');
$t->stop(engine => 'TERM');
is(ended(), 0, 'the last rank 1 ends with rank 0');

$t->done;
