#!/usr/bin/env perl
# A million requests, over HTTP/1.1 and HTTP/2, whole and streamed, through a
# dozen engines that succeed each other: every one is answered and accounted
# for, and the workers are no larger at the end than near the beginning.
#
# LLM_REQUESTS: how many.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $requests = $ENV{LLM_REQUESTS} // 1_000_000;
my $each = int $requests / 4;
my $tokens = 2;
plan skip_all => 'no h2load' if system('h2load --version >/dev/null 2>&1');

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex('key'), " id tenant\n";
close $f;

my $h2c = LLM->free_port;
my $t = LLM->new(workers => 2, no_nginx => 1,
    engine => [qw(--device null --model_name m --log_level warn)],
    location => 'access_log off;',
    conf => "llm_key_file $dir/keys; llm_zone llm:1m state=$dir/state;\n"
        . "llm_tenant tenant { tokens 1000000000 burst=1000000000; }\n"
        . "keepalive_requests 1000000000; keepalive_timeout 600s;\n",
    server => "        listen 127.0.0.1:$h2c http2;\n");
$t->start_nginx or die $t->error_log;
$t->wait_ready;
my @workers = sort $t->pids;

for my $stream (0, 1) {
    open my $f, '>', "$t->{dir}/body$stream" or die $!;
    print $f LLM->encode({ model => 'm', prompt => 'x', max_tokens => $tokens,
        ignore_eos => JSON::PP::true, stream => $stream ? JSON::PP::true : JSON::PP::false });
    close $f;
}
my @names;
for my $stream (0, 1) {
    for my $h2 (0, 1) {
        push @names, "clients$stream$h2";
        $t->_spawn($names[-1], "$t->{dir}/$names[-1].log", 'h2load', '-n', $each, '-c', 16,
            ($h2 ? ('-m', 8) : '--h1'), '-d', "$t->{dir}/body$stream",
            '-H', 'Authorization: Bearer key', '-H', 'Content-Type: application/json',
            'http://127.0.0.1:' . ($h2 ? $h2c : $t->{port}) . '/v1/completions');
    }
}

my ($engines, $left, $start, @rss) = (1, scalar @names, time);
my $next = time + 5;
while ($left && time < $start + 3600) {
    sleep 0.2;
    $left -= grep { defined $t->reap($_, 0) } grep { $t->{pids}{$_} } @names;
    next if time < $next || !$left;
    @rss = map { $t->rss_kb($_) } @workers if !@rss;
    $next = time + 15;
    $t->{pids}{old} = delete $t->{pids}{engine};
    $t->start_engine('--takeover', 1);
    defined $t->reap('old', 60) or last;
    $engines++;
}
is($left, 0, 'all clients end');
my ($ok, $bad) = (0, '');
for my $name (@names) {
    my $log = LLM::_slurp("$t->{dir}/$name.log");
    $ok += $1 if $log =~ /^status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx/m;
    $bad .= $1 if $log =~ /^(requests: .*)$/m && $1 !~ / $each succeeded, 0 failed, 0 errored/;
}
is($bad, '', 'none fails');
is($ok, 4 * $each, "$ok requests, $engines engines, " . int(time - $start) . ' s');
is(join(' ', sort $t->pids), "@workers", 'no worker has died');
if (@rss) {
    my @now = map { $t->rss_kb($_) } @workers;
    cmp_ok($now[$_] - $rss[$_], '<', 4096, "a worker had $rss[$_] kB, has $now[$_]") for 0, 1;
}

# the zone has them all (ledger.h)
open my $state, '<:raw', "$dir/state" or die $!;
read $state, my $mem, int((-s $state) / 3 / 4096) * 4096;
my ($asked, $output);
for (my $at = 192; $at + 192 <= length $mem; $at += 192) {
    my ($id, $n, $out, $kind) = unpack 'Q x32 Q x24 Q x4 L', substr $mem, $at, 192;
    ($asked, $output) = ($n, $out) if $id && $kind == 1;
}
is($asked, 4 * $each, 'each is counted');
is($output, 4 * $each * $tokens, 'and its tokens');
$t->done;
