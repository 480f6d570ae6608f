#!/usr/bin/env perl
# TLS cuts a write into records, and nginx may keep the last few bytes of one to
# itself although the socket would take them: then no event tells that there is
# room, and a stream that waits for one ends by send_timeout.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(workers => 1, conf => 'send_timeout 3s; ssl_buffer_size SIZE;',
    engine => [qw(--device null --model_name m --context 4096 --step_min 1ms)], no_nginx => 1);
my %ask = (model => 'm', prompt => 'x', max_tokens => 500);
$t->{conf} =~ s/SIZE/16k/;
$t->start_nginx;
$t->wait_ready;

# a record that holds such an event, its chunk's head, and not the "\r\n" behind
my %length;
my $s = $t->stream('/v1/completions', { %ask });
while (defined(my $e = $s->next_event)) { $length{ length "data: $e\n\n" }++ }
my ($usual) = sort { $length{$b} <=> $length{$a} } keys %length;
$t->stop(nginx => 'TERM');
$t->{conf} =~ s/16k/4 + $usual/e;
$t->start_nginx;
$t->wait_ready;

for my $case (['--http1.1'], ['--http2']) {
    my $out = $t->curl(@$case, '-N', '-d', $t->encode({ %ask, stream => JSON::PP::true }),
        $t->https('/v1/completions'));
    is($?, 0, "@$case: ends in order");
    like($out, qr/\[DONE\]\n\n\z/, "@$case: whole");
}
unlike($t->error_log, qr/timed out/, 'nothing has been waited for in vain');

$t->done;
