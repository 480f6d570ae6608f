#!/usr/bin/env perl
# t/successor.t with thirty engines, reloads and upgrades.

use strict;
use warnings;

$ENV{LLM_ROUNDS} //= 30;
exec $^X, 't/successor.t' or die "t/successor.t: $!";
