#!/usr/bin/env perl
# t/again.t with a hundred engines killed.

use strict;
use warnings;

$ENV{LLM_ROUNDS} //= 100;
exec $^X, 't/again.t' or die "t/again.t: $!";
