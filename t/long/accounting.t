#!/usr/bin/env perl
# t/accounting.t for a minute.

use strict;
use warnings;

$ENV{LLM_SECONDS} //= 60;
exec $^X, 't/accounting.t' or die "t/accounting.t: $!";
