#!/usr/bin/env perl
# Catches: a pinned prefix that is not what requests begin with, that a tenant
# pays for, that is evicted, or that changes an answer by a bit; a tenant who
# learns what another went on with; pins that are lost with a reload or to a
# successor; pins that cannot be and are not refused by name.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0755, $dir;

sub put {
    my ($name, $text) = @_;
    open my $f, '>', "$dir/$name" or die $!;
    print $f $text;
    close $f;
}

put('keys', join '', map { sha256_hex("key $_") . " id$_ t$_\n" } 1 .. 4);
mkdir "$dir/pins" or die $!;
my $system = join ' ', map { "You know the $_ of the server." } qw(page log key port engine
    worker name token tenant model metrics);
put('pins/system.txt', "$system\n");
put('pins/story.json', LLM->encode({ prompt => 'Once upon a time there was a dog who knew '
    . 'every street of the town, and each of its cats' }));

my $model = LLM->demo_name;
my @engine = ('--model', LLM->demo, '--kv_type', 'f16', '--block_tokens', 8,
    '--batch_tokens', 48);
my @pin = ('--prefix_pin', "$dir/pins");
my $t = LLM->new(engine => [@engine, qw(--prefix_cache off)], workers => 1,
    conf => "llm_key_file $dir/keys;");

# The answer, all of it that the model decides, and the usage.
sub ask {
    my ($key, $path, $body) = @_;
    my $r = $t->post($path, { model => $model, temperature => 0, max_tokens => 16, %$body },
        Authorization => "Bearer key $key");
    is($r->{status}, 200, 'answered') or diag($r->{body});
    my $a = $t->decode($r->{body});
    return ($t->encode($a->{choices}), $a->{usage}{prompt_tokens_details}{cached_tokens},
        $a->{usage}{prompt_tokens});
}

sub chat {
    my ($key, $user, %more) = @_;
    return ask($key, '/v1/chat/completions', { messages => [{ role => 'system',
        content => $system }, { role => 'user', content => $user }], logprobs => \1, %more });
}

my $secret = 'My secret is that I keep seventeen penguins in the cellar, and a spare key.';
my ($want) = chat(1, $secret);
my ($want_other, undef, $n) = chat(2, 'Hello');
is($t->metric('blocks_pinned'), 0, 'nothing is pinned');
$t->stop(engine => 'TERM');

# --- pinned: the first of each tenant finds it
$t->{engine} = [@engine, @pin];
$t->start_engine;
$t->wait_ready;
my $pinned = $t->metric('blocks_pinned');
cmp_ok($pinned, '>', 10, 'blocks are pinned');
is($t->metric('blocks_cached'), $pinned, 'and in the cache before anybody came');
like($t->engine_log, qr/prefix_pin \S*system\.txt: \d+ tokens/, 'the log says so');
my ($answer, $cached) = chat(2, 'Hello');
cmp_ok($cached, '>', 0, 'the first request of a tenant finds the prefix');
is($cached % 8, 0, 'in whole blocks');
cmp_ok($n - $cached, '<', 2 * 8 + 8, 'all of it but the seam');
is($answer, $want_other, 'the answer is the same, bit for bit');
my $shared = $cached;
($answer, $cached) = chat(1, $secret);
is($cached, $shared, 'so does another tenant');
is($answer, $want, 'the answer is the same, bit for bit');
(undef, $cached) = chat(3, 'Hello', cache_salt => 'pepper');
is($cached, $shared, 'and one with a salt');
(undef, $cached) = ask(3, '/v1/completions', { prompt => 'Once upon a time there was a dog who '
    . 'knew every street of the town, and each of its cats had a name.' });
cmp_ok($cached, '>', 0, 'a text begins with one, too');
(undef, $cached) = ask(3, '/v1/completions', { prompt => 'Other words, of which there are '
    . 'enough for a block or two of tokens.' });
is($cached, 0, 'who does not begin so finds nothing');

# --- what a tenant went on with is its own: no prefix of it is found by others
(undef, $cached) = chat(1, $secret);
cmp_ok($cached, '>', $shared, 'its own conversation a tenant finds beyond it');
my @words = split / /, $secret;
for my $k (1 .. $#words + 1) {
    (undef, $cached) = chat(4, join(' ', @words[0 .. $k - 1]), cache_salt => "guess $k",
        max_tokens => 1);
    last if $cached != $shared;
}
is($cached, $shared, 'another that guesses it word by word sees no difference');
(undef, $cached) = chat(3, $secret);
is($cached, $shared, 'nor does one that knows all of it');
(undef, $cached) = chat(1, $secret, cache_salt => 'salt');
is($cached, $shared, 'nor the same tenant under a salt');

# --- it stays: through a reload, a flood, and with a successor
ok($t->reload, 'a reload');
$t->wait_ready;
(undef, $cached) = chat(4, 'Hello');
is($cached, $shared, 'changes nothing');
my ($st) = $t->get('/status');
like($st->{body}, qr/"blocks_pinned":\s*$pinned\b/, '/status has it');
$t->stop(engine => 'TERM');

$t->{engine} = [@engine, @pin, qw(--context 256 --kv_memory 2m)];
$t->start_engine;
$t->wait_ready;
my $i = 0;
while ($t->metric('cache_evictions') < 100 && $i++ < 100) {
    ask(3, '/v1/completions', { prompt => "$i $secret $i $secret $i $secret", max_tokens => 1 });
}
cmp_ok($t->metric('cache_evictions'), '>=', 100, 'a full pool gives up blocks');
is($t->metric('blocks_pinned'), $pinned, 'but no pinned one');
(undef, $cached) = chat(4, 'Hello');
is($cached, $shared, 'which are found as before');

$t->{pids}{old} = delete $t->{pids}{engine};
$t->start_engine('--takeover', 1);
my $new = $t->{pids}{engine};
ok($t->wait_for(sub { $t->engine_log =~ / $new#\d+: ready/ }, 60), 'a successor is ready');
is($t->reap('old', 60), 0, 'the one before it ends');
(undef, $cached) = chat(2, 'Hello');
is($cached, $shared, 'the successor has pinned it before it took the path');

# --- what cannot be pinned
sub refused {
    my ($what, $like, @args) = @_;
    my $out = `@{[LLM->build]}/llm-engine --listen $dir/e.sock @args 2>&1`;
    is($?, 256, "$what: exit 1") or diag($out);
    like($out, $like, "$what: says why");
}
my $e = join ' ', @engine;
refused('no such path', qr{prefix_pin $dir/none: No such file}, "$e --prefix_pin $dir/none");
refused('without a cache', qr/prefix_pin: prefix_cache is off/, "$e @pin --prefix_cache off");
refused('more than a half', qr/at most a half of the \d+ KV blocks, found \d+/,
    "$e @pin --kv_memory 64k");
put('short.txt', 'x');
refused('less than a block', qr/at least a block of 64 tokens.*found \d+/,
    "$e --block_tokens 64 --prefix_pin $dir/short.txt");
refused('longer than the context', qr/expected at most 63 tokens/, "$e @pin --context 64");
put('bad.json', '{"mesages": []}');
refused('a member of another name', qr/bad\.json: expected members messages/,
    "$e --prefix_pin $dir/bad.json");
put('empty.json', '');
refused('an empty file', qr/empty\.json: expected a JSON/, "$e --prefix_pin $dir/empty.json");

$t->done;
