#!/usr/bin/env perl
# The official openai client, as its users write it, against the TLS port.  It
# prints TAP of its own, which this file passes on; without access to the
# package index it skips, visibly.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new(engine => ['--model', LLM->demo]);

local $ENV{LLM_BASE_URL} = $t->https('/v1');
local $ENV{LLM_MODEL} = LLM->demo_name;
local $ENV{LLM_CAFILE} = "$t->{dir}/tls.crt";
my $tests = LLM->root . '/tests';
my $run = "$tests/python.sh openai 3.54.0 $tests/openai_client/test_openai.py";
my @lines = split /\n/, `$run 2>&1`;
my $status = $?;
my $n = 0;
for (@lines) {
    if (/^1\.\.0 # skip (.*)/i) {
        SKIP: { skip($1, 1) }
        $n++;
    } elsif (/^(not )?ok\b[ \d-]*(.*)/) {
        ok(!$1, "client: $2");
        $n++;
    } elsif (!/^1\.\./) {
        diag($_);
    }
}
cmp_ok($n, '>', 0, 'the client ran or said why not');
is($status, 0, 'and was content');
$t->done;
