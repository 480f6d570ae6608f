#!/usr/bin/env perl
# A recording of a real run: streams side by side, of which some leave, replay
# to equal plans, whole or cut off; another budget is noticed; nothing that was
# said is in the file; at its limit the recording ends and the engine does not.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $file = "/tmp/ngx_llm_t.rec.$$";

sub replay {
    my (@args) = @_;
    open my $p, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh',
        LLM->build . '/llm-engine', '--replay', @args or die;
    local $/;
    my $out = <$p> // '';
    close $p;
    return ($? >> 8, $out);
}

# --- a run in which blocks are short, and prompts share a beginning
my $t = LLM->new(workers => 2, engine => [
    '--model', LLM->demo, '--model_name', 'm', qw(--context 256 --batch_tokens 64
    --batch_rows 4 --kv_memory 600k --step_target 20ms --step_min 5ms --record), $file ]);

my @streams = map {
    $t->stream('/v1/completions', { model => 'm', ignore_eos => JSON::PP::true,
        prompt => 'The secret cat sat on the mat and looked at ' x (1 + $_ % 3) . $_,
        max_tokens => 20 + 4 * $_, n => $_ == 5 ? 2 : 1, $_ == 4 ? (stop => ['e']) : () });
} 0 .. 9;
$_->next_event(20) for @streams[0 .. 3];
$streams[$_]->close for 1, 3, 8, 9; # two while they run, two that mostly wait
ok(length $streams[$_]->text(0, 30), "stream $_ is served") for 0, 2, 4 .. 7;
is($t->post('/v1/completions', { model => 'm', prompt => 'The secret cat sat on the mat', max_tokens => 3 })->{status},
    200, 'and one more');
$t->signal(engine => 'TERM');
is($t->reap('engine', 20), 0, 'the engine ends');
like($t->engine_log, qr/the recording ends after \d+ bytes: the engine ended/, 'and the recording');
is(sprintf('%o', (stat $file)[2] & 0777), '600', 'which only its owner may read');
unlike(LLM::_slurp($file), qr/secret|cat/, 'and has no text in it');

my ($st, $out) = replay($file);
is($st, 0, 'it replays') or diag($out);
like($out, qr/replayed  11 requests, 0 refused;/, 'every request');
like($out, qr/^plans     all \d+ are equal$/m, 'to equal plans') or diag($out);
like($out, qr/because the engine ended/, 'to its end');
my ($steps) = $out =~ /(\d+) steps,/;
cmp_ok($steps, '>', 30, 'of many steps');

# --- what is changed is noticed, and what would have come of it
($st, $out) = replay($file, '--batch_tokens', 4);
is($st, 0, 'another budget');
like($out, qr/^plan \d+ at [\d.]+ s differs: row \d+, .*\n  recorded: \d rows: .*\n  here:     \d rows: /m,
    'plans differ, and it says where') or diag($out);
my @ends = $out =~ /^finished +(\d+) +(\d+) +(\d+)$/m;
ok(@ends && !(grep { $_ < 7 || $_ > 11 } @ends), 'all but those that were cancelled end') or diag($out);
my ($was, $same, $now) = $out =~ /^steps +(\d+) +(\d+) +(\d+)$/m;
is($was, $steps, 'as many steps as there were');
cmp_ok($now, '>', $same, 'and more with fewer tokens in each');
($st, $out) = replay($file, '--policy', 'fcfs');
is($st, 0, 'another policy') or diag($out);
@ends = $out =~ /^finished +(\d+) +(\d+) +(\d+)$/m;
ok(@ends && !(grep { $_ < 7 || $_ > 11 } @ends), 'they end there, too') or diag($out);

# --- cut off, damaged, none at all
my $bytes = LLM::_slurp($file);
my $write = sub { open my $f, '>:raw', "$file.old" or die; print $f $_[0]; close $f };
$write->(substr $bytes, 0, length($bytes) / 2);
($st, $out) = replay("$file.old");
is($st, 0, 'half of it') or diag($out);
like($out, qr/because the file is cut off.*all \d+ are equal/s, 'is equal as far as it goes');
$write->($bytes =~ s/.\K(?=.{99}\z)/x/sr);
($st, $out) = replay("$file.old");
is($st, 1, 'a damaged one is refused');
like($out, qr/^llm-engine: \Q$file.old\E: frame \d+ is damaged: /m, 'in one sentence');
($st, $out) = replay($0);
is("$st $out", "1 llm-engine: $0: this is not a recording\n", 'as is what is none');

# --- a limit ends the recording, and nothing else
$t->start_engine('--record_limit', '1k');
$t->wait_ready;
is($t->post('/v1/completions', { model => 'm', prompt => "story $_ " x 20, max_tokens => 20 })->{status}, 200,
    'served') for 1 .. 3;
ok($t->wait_for(sub { $t->engine_log =~ /recording ends after \d+ bytes: the limit/ }), 'the log says that it ends');
is($t->post('/v1/completions', { model => 'm', prompt => 'x', max_tokens => 5 })->{status}, 200, 'the engine goes on');
cmp_ok(-s $file, '<=', 1024, 'within the limit');
($st, $out) = replay($file);
is($st, 0, 'what there is replays') or diag($out);
like($out, qr/because the limit of its size was reached/, 'as far as that');
is(LLM::_slurp("$file.old"), $bytes, 'the one before was kept');

$t->done;
unlink $file, "$file.old";
