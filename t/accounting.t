#!/usr/bin/env perl
# Workers and engines are killed at random under load, and every token is still
# accounted for.  Catches: a request that is in the usage log twice or not at
# all; a log that differs from the counters in the zone or from what clients
# got; a reservation or a row that a dead worker leaves behind.
#
# The null engine's tokens are words and full stops.  LLM_SECONDS (8), LLM_SEED.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use List::Util qw(max sum0);
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{LLM_SECONDS} // 8;
srand(my $seed = $ENV{LLM_SEED} // $$);
use constant { CREDIT => 2048, SNDBUF => 4096, RCVBUF => 4096, TENANTS => 4 };

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("key $_"), " id$_ t$_\n" for 0 .. TENANTS - 1;
close $f;

my $t = LLM->new(workers => 3, listen => 'sndbuf=' . SNDBUF, no_nginx => 1,
    engine => [qw(--device null --model_name m --context 20000 --kv_memory 512m
        --step_min 2ms --drain_timeout 1s)],
    location => 'llm_output_buffer ' . CREDIT . '; send_timeout 60s;');

sub conf { # with these budgets
    $t->{conf} = "llm_key_file $dir/keys; llm_zone llm:1m state=$dir/state;\n"
        . "llm_usage_log $dir/usage.log; llm_request_id \$http_x_id;\n"
        . join '', map { "llm_tenant t$_ { budget $_[$_] per=month; }\n" } 0 .. TENANTS - 1;
    return $t->conf_text;
}

my $much = 1_000_000_000;
$t->start_nginx(conf(($much) x TENANTS));
$t->wait_ready;
$t->allow(qr/exited on signal 9/);

# --- the zone, as its file is laid out (ledger.h, series.h, rows.h)
sub zone {
    open my $f, '<:raw', "$dir/state" or die "$dir/state: $!";
    my $size = read $f, my $mem, 1 << 21;
    my $ledger = int($size / 3 / 4096) * 4096;
    my $rows_at = $ledger + int(($size / 24 + 4095) / 4096) * 4096; # behind the series
    my (%account, @rows);
    for (my $at = 192; $at + 192 <= $ledger; $at += 192) {
        my ($id, $month, $asked, $input, $cached, $output, $kind, $name)
            = unpack 'Q x24 Q Q x8 Q Q Q x4 L Z*', substr $mem, $at, 192;
        $account{$name} = { asked => $asked, input => $input, cached => $cached,
            output => $output, month => $month & (1 << 48) - 1 } if $id && $kind == 1;
    }
    my $row = 200 + 136 + 2 * 72 + 128 + 56;
    for (my $at = $rows_at; $at + $row <= $size; $at += $row) {
        my ($owner, $state) = unpack 'Q L', substr $mem, $at, 12;
        push @rows, { pid => $owner >> 40, state => $state,
            id => unpack 'Z*', substr $mem, $at + 200, 136 } if $owner;
    }
    return (\%account, \@rows);
}

# --- clients
my (%count, @open, @over, %doubt);
my $asked = 0;

sub open_one {
    my $c = $t->connect(rcvbuf => RCVBUF) or return $count{refused}++;
    my $id = 'r' . $asked++;
    my $tenant = int rand TENANTS;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => int(rand(4) ? 1 + rand 150 : 15000), stream => JSON::PP::true,
        stream_options => { include_usage => JSON::PP::true } },
        Authorization => "Bearer key $tenant", 'X-Id' => $id);
    my $s = LLM::Stream->new($c);
    @$s{qw(id tenant text)} = ($id, "t$tenant", '');
    $s->{leave} = rand() < 0.25 ? 1 + int rand 60 : 0; # after so many tokens
    $s->{lazy} = rand() < 0.1 ? time + rand 5 : 0;     # reads the head only, until then
    push @open, $s;
    $count{sent}++;
}

sub tokens { scalar(() = $_[0] =~ /[ .]/g) }

# What has come; 1 when that was all.
sub look {
    my ($s) = @_;
    while ($s->head(0)) {
        $s->unchunk;
        last if $s->{body} !~ s/^(?:data: )?(.*?)\n\n//s;
        my $e = $1;
        next if $e eq '[DONE]' && ++$s->{done_seen};
        my $j = LLM->decode($e);
        $s->{usage} = $j->{usage} if $j->{usage};
        $s->{error} = $j->{error} if $j->{error};
        $s->{text} .= $_->{text} // '' for @{ $j->{choices} // [] };
    }
    return $s->{whole} || $s->{eof};
}

sub over {
    my ($s, $how) = @_;
    $s->{how} = $how // ($s->{whole} ? 'whole' : defined $s->{status} ? 'cut' : 'nothing');
    $s->close;
    push @over, $s;
    $count{ $s->{how} }++;
}

sub turn {
    my ($wait) = @_;
    my %by = map { $_->socket => $_ } grep { !($_->{lazy} && $_->{headers}) } @open;
    $_->fill(0) for map { $by{$_} } IO::Select->new(map { $_->socket } values %by)
        ->can_read($wait);
    my @left;
    for my $s (@open) {
        if (look($s)) {
            over($s);
        } elsif ($s->{leave} && tokens($s->{text}) >= $s->{leave}
            || $s->{lazy} && time > $s->{lazy}) {
            over($s, 'left');
        } else {
            push @left, $s;
        }
    }
    @open = @left;
}

# --- the storm
my ($end, $next) = (time + $seconds, time + 0.7);
my $seen_open = 0;
while (time < $end) {
    open_one() while @open < 40;
    turn(0.02);
    next if time < $next;
    $next = time + 0.4 + rand 1.2;
    my ($accounts, $rows) = zone();
    $seen_open = max($seen_open, scalar grep { $_->{id} =~ /^r\d+$/ && $_->{state} == 2 } @$rows);
    if (rand() < 0.6) {
        my @w = $t->pids;
        my $pid = $w[rand @w] // next;
        kill KILL => $pid;
        $count{workers_killed}++;
        $t->wait_for(sub { !grep { $_ == $pid } $t->pids }, 10);
        # killed between its line and the row's end: that line is written again
        $doubt{ $_->{id} } = 1 for grep { $_->{pid} == $pid && $_->{state} == 3 } @{ (zone())[1] };
    } else {
        $t->signal(engine => 'KILL');
        $t->reap('engine');
        $t->start_engine;
        $count{engines_killed}++;
    }
}

# those that are still running: some to their end, the others leave
$_->{leave} ||= 1 for @open;
$end = time + 60;
while (@open && time < $end) {
    turn(0.05);
    over($_, 'left') for grep { $_->{lazy} } @open;
    @open = grep { !$_->{lazy} } @open;
}
is(scalar @open, 0, 'no stream hangs');
cmp_ok($seen_open, '>', 5, "rows were open in the storm: $seen_open");

my ($accounts, $rows);
ok($t->wait_for(sub { ($accounts, $rows) = zone(); !@$rows }, 60), 'no row stays open')
    or diag(LLM->encode($rows));

# --- the log
my @lines = map { LLM->decode($_) } split /\n/, LLM::_slurp("$dir/usage.log");
my %line;
push @{ $line{ $_->{id} } }, $_ for @lines;
my @twice = grep { @{ $line{$_} } > 1 && !$doubt{$_} } keys %line;
is("@twice", '', 'no request is in the log twice');
my @lost = grep { $_->{how} ne 'nothing' && !$line{ $_->{id} } } @over;
is(join(' ', map { $_->{id} } @lost), '', 'none that was answered is missing');

# --- log and clients
my (@differ, @less, @more, $exact, $most) = ();
for my $s (@over) {
    my $l = ($line{ $s->{id} } // next)->[-1];
    my $got = tokens($s->{text});
    my $logged = $l->{completion_tokens};
    if ($s->{how} eq 'whole') {
        $exact++;
        $count{ $s->{done_seen} && !$s->{error} ? 'done' : "error_$s->{status}" }++;
        push @differ, "$s->{id}: got $got, logged $logged, $l->{finish}" if $got != $logged
            || ($s->{usage} && $s->{usage}{completion_tokens} != $logged);
        next;
    }
    $count{recovered}++ if $l->{recovered};
    push @less, "$s->{id}: got $got, logged $logged, $s->{how}" if $logged < $got;
    $s->{excess} = $logged - $got;
}
cmp_ok($exact // 0, '>', 10, 'many were seen to their end');
is(join("\n", @differ), '', 'and the log says of each what its client got');
is(join("\n", @less), '', 'of those cut it says no less');


# beyond what the client has got lies one credit, and what its sockets hold
my ($longest) = sort { length $b->{text} <=> length $a->{text} } @over;
my $bytes = length($longest->{text}) / (tokens($longest->{text}) || 1);
my $beyond = (CREDIT + 2 * SNDBUF + 2 * RCVBUF) / $bytes + 1;
my ($worst) = sort { $b->{excess} <=> $a->{excess} } grep { defined $_->{excess} } @over;
cmp_ok($worst->{excess}, '<=', $beyond,
    sprintf "nor more than %d tokens more: %d at most", $beyond, $worst->{excess});

# --- log and counters; what was doubtful may be in one and not the other
($accounts) = zone();
for my $i (0 .. TENANTS - 1) {
    my ($of, $all) = ("t$i", $accounts->{"t$i"} // {});
    my @of = grep { $_->{tenant} eq $of } @lines;
    my %once = map { $_->{id} => $_ } @of;
    my %sum = (asked => scalar @of, input => sum0(map { $_->{prompt_tokens} } @of),
        cached => sum0(map { $_->{cached_tokens} } @of),
        output => sum0(map { $_->{completion_tokens} } @of),
        month => 1000 * sum0(map { $_->{prompt_tokens} + $_->{completion_tokens} } values %once));
    if (grep { $once{$_} } keys %doubt) {
        diag("$of: killed while a line was written, by up to that it may differ");
        cmp_ok(abs($all->{asked} - $sum{asked}), '<=', scalar keys %doubt, "$of: requests");
        next;
    }
    is_deeply($all, \%sum, "$of: the counters are the log's sums");

    # and the budget has just that left
    $_ = $all->{month} / 1000 + 50 for $sum{budget};
    $accounts->{$of}{budget} = $sum{budget};
}

$t->start_engine if !$t->{pids}{engine};
$t->write_conf(conf(map { $accounts->{"t$_"}{budget} // $much } 0 .. TENANTS - 1));
ok($t->reload, 'reload with budgets of 50 more than that');
$t->wait_for(sub { $t->pids == 3 }, 30);
$t->wait_ready;
my ($prompt) = map { $_->{prompt_tokens} } grep { $_->{prompt_tokens} } @lines;
for my $i (grep { $accounts->{"t$_"}{budget} } 0 .. TENANTS - 1) {
    is(join(' ', map {
        $t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => $_,
            ignore_eos => JSON::PP::true }, Authorization => "Bearer key $i")->{status}
    } 51 - $prompt, 50 - $prompt, 1), '429 200 429', "t$i: 51 do not fit, 50 do, then none");
}

diag(sprintf 'seed %d, %d s: %s; lines %d, excess %d of %d tokens, doubtful %d', $seed, $seconds,
    join(', ', map { "$_ $count{$_}" } sort keys %count), scalar @lines, $worst->{excess},
    $beyond, scalar keys %doubt);
$t->done;
