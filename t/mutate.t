#!/usr/bin/env perl
# Every field that one process can write for another to read, changed one at a
# time in what is else sound (tests/mutate.h), while somebody honest is served
# beside: by an engine into a worker that has a sound one, too, and by a worker
# into an engine that has a sound one, too.  Catches: a length, an index, an
# enum, a generation that is believed.
#
# LLM_CASES: how many, of each (1500); LLM_SEED: which.  Under AddressSanitizer
# where tests/asan-nginx.sh runs it, and t/long/mutate.t.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $cases = $ENV{LLM_CASES} // 1500;
my $seed = $ENV{LLM_SEED} // 1;
my $patience = 60 + $cases / 20;
plan skip_all => 'no h2load' if system('h2load --version >/dev/null 2>&1');
plan skip_all => 'no hostile_worker' if !-x LLM->build . '/hostile_worker';

my $keys = File::Temp->new(TEMPLATE => '/tmp/ngx_llm_t.XXXXXX');
print $keys sha256_hex('key'), " id tenant\n";
$keys->flush;
chmod 0644, "$keys";

my $t = LLM->new(workers => 1, no_nginx => 1,
    engine => [qw(--device null --model_name m --step_min 1ms --context 20000
        --requests 256 --slots 300)],
    conf => "llm_key_file $keys; llm_zone llm:1m;\n" . <<'CONF',
    keepalive_requests 1000000000;
    llm_tenant tenant { tokens 100000000 burst=100000000; }
CONF
    location => 'access_log off; llm_first_token_timeout 1s; llm_token_timeout 1s;
        llm_request_timeout 5s;');

# one by many names: after each nonsense an attachment is waited for
my $bad = "$t->{dir}/bad.sock";
for (1 .. 8) {
    $t->{conf} .= "    llm_engine bad$_ { server unix:$bad; reconnect 10ms 10ms; }\n";
    $t->{server} .= "        location /bad$_/ { llm_pass bad$_; access_log off;"
        . " llm_first_token_timeout 1s; llm_token_timeout 1s; }\n";
}
$t->start_nginx($t->conf_text =~ s{error\.log info}{error.log notice}r) or diag($t->error_log, LLM::_slurp("$t->{dir}/stderr.log"));
$t->wait_for(sub { $t->attached }, 20);
my ($worker) = $t->pids;
my $engine = $t->{pids}{engine};

sub ask {
    my $s = $t->connect or die "connect: $!";
    print $s $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => 200, stream => JSON::PP::true }, Authorization => 'Bearer key');
    return LLM::Stream->new($s)->text(0, 20);
}

my $want = ask();
ok(length $want, 'what a client gets in peace');

# Serves honest clients until over() says so; how many, and how many as in peace.
sub meanwhile {
    my ($over) = @_;
    my ($n, $same, $end) = (0, 0, time + $patience);
    until ($over->() || time > $end) {
        $n++;
        $same++ if ask() eq $want;
    }
    return ($n, $same);
}

# --- an engine
$t->_spawn(bad => "$t->{dir}/bad.log", LLM->build . '/fake_engine', $bad,
    qw(--model m --mutate), $seed);
$t->wait_for(sub { -S $bad }, 10);
for my $stream (0, 1) {
    open my $f, '>', "$t->{dir}/body$stream" or die $!;
    print $f LLM->encode({ model => 'm', prompt => 'x', max_tokens => 4, logprobs => 2,
        stream => $stream ? JSON::PP::true : JSON::PP::false });
    close $f;
    $t->_spawn("clients$stream", "$t->{dir}/clients$stream.log", qw(h2load --h1 -n 1000000000),
        '-c', 8, '-d', "$t->{dir}/body$stream", '-H', 'Authorization: Bearer key',
        map { "http://127.0.0.1:$t->{port}/bad$_/completions" } 1 .. 8);
}

# how many cases, once each field has had one
sub mutated {
    my ($n, $least) = LLM::_slurp("$t->{dir}/bad.log") =~ /.*^mutated (\d+), \S+ least: (\d+)/ms;
    return $least ? $n : 0;
}

my ($n, $same) = meanwhile(sub { mutated() >= $cases || defined $t->reap('bad', 0) });
cmp_ok(mutated(), '>=', $cases, 'an engine: ' . mutated() . ' cases');
cmp_ok($n, '>', 0, 'others were served meanwhile');
is($same, $n, "$n of them as in peace");
$t->stop($_, 'INT') for qw(clients0 clients1);
$t->stop(bad => 'TERM');
my ($in_all, $least) = LLM::_slurp("$t->{dir}/bad.log") =~ /^(mutated \d+ in all), .* least: (\d+)/m;
cmp_ok($least // 0, '>', 0, 'every field was among them')
    or diag(LLM::_slurp("$t->{dir}/bad.log"));
my $log = $t->error_log;
diag(sprintf 'an engine: %s, each field at least %d times, seed %d; %d attachments given up, '
    . '%d not begun; %d clients beside', $in_all // '?', $least // 0, $seed,
    scalar(() = $log =~ /wrote nonsense/g), scalar(() = $log =~ /not attached: /g), $n);
is(($t->pids)[0], $worker, 'the worker never died');
is($t->status->{engines}[0]{worker_slots_used}, 0, 'no slot of the sound engine is in use');
is(ask(), $want, 'served as before');


# --- a worker
$t->_spawn(hostile => "$t->{dir}/hostile.log", LLM->build . '/hostile_worker', $t->{socket},
    'mutate', $patience, $seed, $cases);
my $ended;
($n, $same) = meanwhile(sub { $ended = defined $t->reap('hostile', 0) });
ok($ended, 'a worker: it has ended');
($in_all, $least) = LLM::_slurp("$t->{dir}/hostile.log")
    =~ /^mutated (\d+) in all, .* least: (\d+)/m;
cmp_ok($in_all // 0, '>=', $cases, 'after ' . ($in_all // 'no') . ' cases');
cmp_ok($least // 0, '>', 0, 'every field was among them');
cmp_ok($n, '>', 0, 'others were served meanwhile');
is($same, $n, "$n of them as in peace");
diag(LLM::_slurp("$t->{dir}/hostile.log"), "$n clients beside");
ok(kill(0, $engine) && waitpid($engine, POSIX::WNOHANG()) == 0, 'the engine lives');
is(ask(), $want, 'served as before');
is(($t->pids)[0], $worker, 'the worker never died');

$t->allow(qr/llm engine/);
$t->done;
