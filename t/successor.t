#!/usr/bin/env perl
# Under load, engine after engine is succeeded by one that is started on the
# same path with takeover, nginx is reloaded and upgraded to another binary.
# Catches: a single request that fails by any of it, or is cut.
#
# LLM_ROUNDS (1) of all three; t/long/successor.t has more.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{LLM_ROUNDS} // 1;
my $nginx = $ENV{LLM_NGINX} // '/usr/sbin/nginx';
my $t = LLM->new(no_nginx => 1, workers => 2, engine => [qw(--device null --model_name m
    --context 4096 --kv_memory 128m --step_min 1ms)]);

# an upgrade needs a daemon; its masters are not our children
my @masters;
END { kill KILL => @masters if @masters }
sub alive { my ($pid) = @_; -e "/proc/$pid" && LLM::_slurp("/proc/$pid/stat") !~ /\) Z/ }
sub master { (LLM::_slurp("$t->{dir}/nginx.pid") =~ /(\d+)/)[0] }

$t->write_conf($t->conf_text =~ s/daemon off/daemon on/r);
{
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:detect_odr_violation=0';
    mkdir "$t->{dir}/asan" and chmod 01777, "$t->{dir}/asan";
    $ENV{ASAN_OPTIONS} .= ":log_path=$t->{dir}/asan/report";
    is(system($nginx, '-p', $t->{dir}, '-e', "$t->{dir}/error.log", '-c', "$t->{dir}/nginx.conf"),
        0, 'nginx');
}
ok($t->wait_for(sub { master() }, 20), 'is a daemon');
push @masters, master();
my $attached = sub { scalar(() = $t->engine_log =~ /^.* attached, epoch/mg) };
ok($t->wait_for(sub { $attached->() >= 2 }, 20), 'both workers attach');

# --- clients, each of whom goes on until this pipe is closed
pipe my $go_on, my $stop or die $!;
my @clients = map {
    my $kind = $_;
    pipe my $r, my $w or die $!;
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        close $_ for $r, $stop;
        my %n = (sent => 0);
        my @bad;
        until (IO::Select->new($go_on)->can_read(0)) {
            $n{sent}++;
            my $max = 1 + int rand 200;
            my %ask = (model => 'm', prompt => 'x', max_tokens => $max,
                ignore_eos => JSON::PP::true);
            my ($status, $got) = (0, '');
            if ($kind % 2) {
                my $s = eval { $t->stream('/v1/completions', { %ask }) };
                $status = $s ? $s->status(60) : 0;
                $got = $s ? $s->text(0, 60) : '';
                $got = 'cut' if !$s || !$s->{done_seen};
            } else {
                my $r = $t->post('/v1/completions', { %ask });
                $status = $r->{status};
                $got = $status == 200 ? LLM->decode($r->{body})->{choices}[0]{text} : $r->{body};
            }
            my $n = () = $got =~ /[ .]/g;
            $status == 200 && $n == $max ? $n{answered}++
                : push @bad, "$status after $n of $max: " . substr $got, 0, 100;
        }
        print $w LLM->encode({ %n, bad => \@bad });
        close $w;
        POSIX::_exit(0);
    }
    close $w;
    { pid => $pid, from => $r };
} 0 .. 9;

# --- one engine after another
for my $i (1 .. $rounds) {
    sleep 0.3;
    $t->{pids}{old} = delete $t->{pids}{engine};
    $t->start_engine('--takeover', 1);
    my $new = $t->{pids}{engine};
    ok($t->wait_for(sub { $t->engine_log =~ / $new#\d+: ready/ }, 60), "$i: a successor is ready");
    is($t->reap('old', 60), 0, "$i: the one before it ends");
    is($t->status->{engines}[0]{attached}, JSON::PP::true, "$i: the new one is attached");

    my $n = $attached->();
    kill HUP => master();
    ok($t->wait_for(sub { $attached->() >= $n + 2 }, 60), "$i: new workers attach");

    my $old = master();
    $n = $attached->();
    kill USR2 => $old;
    ok($t->wait_for(sub { my $m = master(); $m && $m != $old }, 60), "$i: a new master");
    push @masters, master();
    ok($t->wait_for(sub { $attached->() >= $n + 2 }, 60), "$i: its workers attach");
    kill QUIT => $old;
    ok($t->wait_for(sub { !alive($old) }, 60), "$i: the old one ends");
    @masters = grep { $_ != $old } @masters;
}

close $stop;
my (%sum, @bad);
for my $c (@clients) {
    my $text = do { local $/; readline $c->{from} };
    waitpid $c->{pid}, 0;
    my $n = eval { LLM->decode($text // '') } // { bad => ['no word of it'] };
    push @bad, @{ delete $n->{bad} };
    $sum{$_} += $n->{$_} for keys %$n;
}
is(join("\n", @bad), '', 'no request has failed');
is($sum{answered}, $sum{sent}, "$sum{sent} were sent, $sum{answered} answered");
ok($t->pool_is_full(30), 'nothing of them is left');
diag("$rounds rounds: sent $sum{sent}, answered $sum{answered}, failed " . @bad);

kill TERM => my $last = master();
ok($t->wait_for(sub { !alive($last) }, 20), 'nginx ends') and @masters = ();
$t->done;
