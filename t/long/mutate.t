#!/usr/bin/env perl
# t/mutate.t with 100,000 cases of each, under AddressSanitizer where
# tests/asan-nginx.sh has left an nginx and an engine with it.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $asan = LLM->build . '/asan';
my $nginx = LLM->build . '/asan-nginx-bookworm/nginx';
$ENV{LLM_CASES} //= 100_000;
if (-x $nginx && -x "$asan/llm-engine" && -x "$asan/hostile_worker") {
    $ENV{LLM_NGINX} //= $nginx;
    $ENV{LLM_BUILD} //= $asan;
}
diag($ENV{LLM_NGINX} ? "nginx: $ENV{LLM_NGINX}" : 'no AddressSanitizer here');
exec $^X, 't/mutate.t' or die "t/mutate.t: $!";
