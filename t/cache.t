#!/usr/bin/env perl
# Catches: a prefix cache, or its second tier, that changes an answer by a bit,
# that another tenant or salt can feel, whose tokens are counted wrongly or not
# at all, that goes on being used when it is off, or that holds blocks back from
# those who need them.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0755, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("key $_"), " id$_ t$_\n" for 1 .. 3;
close $f;

my $model = LLM->demo_name;
my @engine = ('--model', LLM->demo, '--kv_type', 'f16', '--block_tokens', 8,
    '--batch_tokens', 48);
my $t = LLM->new(engine => [@engine, qw(--prefix_cache off)], workers => 1,
    conf => "llm_key_file $dir/keys;");

my $long = join ' ', map { "The $_ of the server is the $_ of its metrics." } qw(page log key
    port engine worker name token tenant model);

# The answer, all of it that the model decides, and how many tokens were cached.
sub ask {
    my ($key, $prompt, %more) = @_;
    my $r = $t->post('/v1/completions', { model => $model, prompt => $prompt, temperature => 0,
        max_tokens => 24, logprobs => 3, %more }, Authorization => "Bearer key $key");
    is($r->{status}, 200, 'answered') or diag($r->{body});
    my $a = $t->decode($r->{body});
    return ($t->encode($a->{choices}), $a->{usage}{prompt_tokens_details}{cached_tokens},
        $a->{usage}{prompt_tokens});
}

# --- off: what is the answer, and nothing is kept
my ($want, $cached, $n) = ask(1, $long);
my ($again, $none) = ask(1, $long);
is("$cached $none", '0 0', 'off: nothing is found');
is($again, $want, 'the same answer twice');
is($t->metric('blocks_cached'), 0, 'off: nothing is kept');
my ($turn_want) = ask(1, "$long What is the key?");
my ($many_want) = ask(1, [$long, "$long And"], n => 2);
cmp_ok($n, '>', 100, 'a prompt of many blocks');
$t->stop(engine => 'TERM');

# --- on
$t->{engine} = [@engine, qw(--prefix_cache on)];
$t->start_engine;
$t->wait_ready;
(my $first, $cached) = ask(1, $long);
is($cached, 0, 'on: the first finds nothing');
is($first, $want, 'and has the same answer, bit for bit');
(my $second, $cached) = ask(1, $long);
is($cached, int(($n - 1) / 8) * 8, 'the second finds all but the last of it');
is($second, $want, 'and has the same answer, bit for bit');
(my $turn, $cached) = ask(1, "$long What is the key?");
cmp_ok($cached, '>=', int(($n - 2) / 8) * 8, 'so does who goes on from there');
is($turn, $turn_want, 'with the same answer');
(my $many) = ask(1, [$long, "$long And"], n => 2);
is($many, $many_want, 'two prompts, two choices of each, in one batch: the same');

# --- nobody else feels it
(my $other, $cached) = ask(2, $long);
is($cached, 0, 'another tenant finds nothing');
is($other, $want, 'the answer is the same');
(undef, $cached) = ask(1, $long, cache_salt => 'pepper');
is($cached, 0, 'a salt sets apart');
(undef, $cached) = ask(1, $long, cache_salt => 'pepper');
cmp_ok($cached, '>', 0, 'those without it');
(undef, $cached) = ask(2, $long, cache_salt => 'pepper');
is($cached, 0, 'not tenants from each other less');
my $r = $t->post('/v1/completions', { model => $model, prompt => 'x', cache_salt => '' },
    Authorization => 'Bearer key 1');
is($r->{status}, 400, 'an empty salt');
is($t->decode($r->{body})->{error}{param}, 'cache_salt', 'is refused by name');
cmp_ok($t->metric('cache_hits'), '>', 2 * $n, 'the metrics tell');
cmp_ok($t->metric('cache_asked'), '>', $t->metric('cache_hits'), 'of both');
cmp_ok($t->metric('blocks_cached'), '>', 10, 'and of what is kept');
$r = $t->post('/v1/chat/completions', { model => $model, max_tokens => 4, stream => JSON::PP::true,
    stream_options => { include_usage => JSON::PP::true },
    messages => [{ role => 'user', content => $long }] }, Authorization => 'Bearer key 3') for 1 .. 2;
like($r->{body}, qr/"cached_tokens":[1-9]/, 'a stream says it too');
is($t->metric('host_blocks_total'), 0, 'there is no second tier');
$t->stop(engine => 'TERM');

# --- for all, and hardly any room
$t->{engine} = [@engine, qw(--prefix_share all --context 256 --kv_memory 1m)];
$t->start_engine;
$t->wait_ready;
ask(1, $long);
(undef, $cached) = ask(2, $long);
cmp_ok($cached, '>', 0, 'shared by all: another tenant finds it');
(undef, $cached) = ask(2, $long, cache_salt => 'pepper');
is($cached, 0, 'but for those with a salt');
my $total = $t->metric('blocks_total');
my $i = 0;
while ($t->metric('cache_evictions') == 0 && $i++ < 60) {
    ask(3, "$i $long");
}
cmp_ok($t->metric('cache_evictions'), '>', 0, "$total blocks are full one day: the oldest go");
my ($late) = ask(1, $long);
is($late, $want, 'the same answer still');
$t->stop(engine => 'TERM');

# --- hardly any room, but host memory
$t->{engine} = [@engine, qw(--context 256 --kv_memory 1m --kv_host_memory 16m)];
$t->start_engine;
$t->wait_ready;
ask(1, $long);
$i = 0;
while ($t->metric('cache_evictions') < $total && $i++ < 60) {
    ask(1, "$i $long");
}
cmp_ok($t->metric('host_blocks_out'), '>', $total, 'what is evicted was copied before');
is($t->metric('host_blocks_in'), 0, 'nobody wanted it yet');
(my $there, $cached) = ask(1, $long);
is($cached, int(($n - 1) / 8) * 8, 'who comes again finds all of it');
cmp_ok($t->metric('host_blocks_in'), '>', 0, 'it comes back');
(my $back, $cached) = ask(1, $long);
is("$there$back", "$want$want", 'with the same answer, bit for bit');
is($cached, int(($n - 1) / 8) * 8, 'and is in the pool again');
is($t->metric('host_hits'), 1, 'once');
is($t->metric('host_tokens'), $cached, 'the metrics tell what that saved');
cmp_ok($t->metric('host_bytes_in'), '>', 0, 'and what was copied for it');
is($t->metric('host_copies_failed'), 0, 'without a failure');
is($t->metric('blocks_transit'), 0, 'and nothing is on its way');
(undef, $cached) = ask(2, $long);
is($cached, 0, 'another tenant finds nothing there');

$t->done;
