#!/usr/bin/env perl
# Prompts, answers and keys reach no log and no core dump, at any log level.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(engine => [qw(--device null --model_name m --log_level debug
    --step_min 5ms)], workers => 1);
my @secret = ('s3cretPrompt', 's3cretKey', 's3cretStop', 's3cretMessage', 's3cretUnknown');
my @auth = (Authorization => "Bearer $secret[1]", 'X-Api-Key' => $secret[1]);

$t->post('/v1/completions', { model => 'm', prompt => $secret[0], max_tokens => 4,
    stop => $secret[2], user => $secret[0] }, @auth);
$t->post('/v1/chat/completions', { model => 'm', max_tokens => 4,
    messages => [{ role => 'user', content => $secret[3] }] }, @auth);
$t->post('/v1/chat/completions', { model => 'm',
    messages => [{ role => $secret[3], content => 5 }] }, @auth);
$t->post('/v1/completions', { model => $secret[4], prompt => $secret[0] }, @auth);
$t->post('/v1/completions', qq({"prompt": "$secret[0]), @auth);
my $s = $t->stream('/v1/completions', { model => 'm', prompt => $secret[0] });
$s->next_event;
$s->close;
$t->pool_is_full;

for my $log ('engine.log', 'error.log', 'access.log') {
    open my $f, '<', "$t->{dir}/$log" or die "$log: $!";
    local $/;
    my $text = <$f>;
    cmp_ok(length $text, '>', 0, "$log has lines");
    unlike($text, qr/$_/, "$log has no $_") for @secret;
    unlike($text, qr/lorem|ipsum/, "$log has no answer");
}

my $pid = $t->{pids}{engine};
open my $f, '<', "/proc/$pid/limits" or die $!;
my ($core) = grep { /^Max core file size/ } <$f>;
like($core, qr/^Max core file size\s+0\s+0/, 'no core file');
# an undumpable process's /proc entries belong to root
is((stat "/proc/$pid/mem")[4], 0, 'not dumpable');

$t->done;
