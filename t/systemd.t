#!/usr/bin/env perl
# The units in conf/systemd/: systemd takes them, stop times let streams end,
# and their hardening leaves the tokenizer's regular expressions their JIT.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

system('systemd-analyze --version >/dev/null 2>&1') == 0 or plan skip_all => 'no systemd-analyze';

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
my $conf = LLM->root . '/conf';
my $engine = LLM::_slurp("$conf/systemd/llm-engine.service");
my $nginx = LLM::_slurp("$conf/systemd/nginx-llm.conf");

sub put {
    my ($name, $text) = @_;
    open my $f, '>', "$dir/$name" or die "$name: $!";
    print $f $text;
    close $f or die $!;
}

# One value of a unit, in seconds if it is a time.
sub value {
    my ($text, $name) = @_;
    my ($v) = $text =~ /^\Q$name\E=(.*)$/m or return;
    return $v =~ /^(\d+)(?:s|sec)?$/ ? $1 : $v =~ /^(\d+)\s*m(?:in)?$/ ? 60 * $1 : $v;
}

# --- as they are, but for where things are installed
my $engine_is = LLM->build . '/llm-engine';
put('llm-engine.service', $engine =~ s{/usr/sbin/llm-engine}{$engine_is}r);
put('nginx.service', "[Unit]\nDescription=nginx\n[Service]\nType=forking\n"
    . "PIDFile=/run/nginx.pid\nExecStart=/bin/true\nExecStop=/bin/true\n");
mkdir "$dir/nginx.service.d" or die $!;
put('nginx.service.d/llm.conf', $nginx =~ s{/sbin/start-stop-daemon}{/bin/true}r);

for my $unit (qw(llm-engine.service nginx.service)) {
    my $out = `SYSTEMD_UNIT_PATH=$dir: systemd-analyze verify --man=no --recursive-errors=no $dir/$unit 2>&1`;
    is("$?: $out", '0: ', "systemd-analyze verify $unit");
}

# the same for a rank on one of several machines
mkdir "$dir/llm-engine.service.d" or die $!;
put('llm-engine.service.d/ranks.conf', my $ranks = LLM::_slurp("$conf/ranks/systemd.conf"));
my $verified = `SYSTEMD_UNIT_PATH=$dir: systemd-analyze verify --man=no --recursive-errors=no $dir/llm-engine.service 2>&1`;
is("$?: $verified", '0: ', 'systemd-analyze verify, with ranks.conf');
is(value($ranks, 'Restart'), 'always', 'a follower that ended with rank 0 waits for the next one');
is(value($ranks, 'PrivateNetwork'), 'no', 'and has the network');
my ($wait) = `$engine_is --help` =~ /tensor_parallel_wait.*\[(\d+)m\]/s;
cmp_ok(value($engine, 'TimeoutStartSec'), '>', 60 * $wait, 'which it may wait for, that long');

# --- stop times
my ($drain) = `$engine_is --help` =~ /drain_timeout.*\[(\d+)s\]/s;
ok($drain, "the engine drains for $drain s");
cmp_ok(value($engine, 'TimeoutStopSec'), '>', $drain, 'and is given longer');
my ($shutdown) = LLM::_slurp("$conf/full.conf") =~ /^\s*worker_shutdown_timeout\s+(\d+)m;/m;
my ($retry) = $nginx =~ m{--retry QUIT/(\d+)};
cmp_ok($retry, '>', 60 * $shutdown, "workers shut down for $shutdown min: QUIT waits longer");
cmp_ok(value($nginx, 'TimeoutStopSec'), '>', $retry, 'and systemd longer than that');
is(value($engine, 'KillSignal') // 'SIGTERM', 'SIGTERM', 'the engine is asked to drain');

# --- hardening
is(value($engine, $_), 'yes', $_) for qw(NoNewPrivileges PrivateTmp LockPersonality
    ProtectKernelModules ProtectKernelTunables RestrictNamespaces);
is(value($engine, 'ProtectSystem'), 'strict', 'ProtectSystem');
unlike($engine, qr/^MemoryDenyWriteExecute=(?!no)/m, 'PCRE2 may write its code');

done_testing();
