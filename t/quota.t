# Catches: a limit that lets more through than it says, at once or over time,
# by many requests at a time or by long ones; less than it says, because what
# was not used did not come back; a refusal that costs something; headers that
# do not fall and recover; a budget that a restart forgets.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
my @tenants = qw(req keyed tok out day month free weigh dry odd);
open my $f, '>', "$dir/keys" or die $!;
for my $tenant (@tenants) {
    print $f sha256_hex("$tenant$_"), " $tenant$_ $tenant\n" for 1 .. 3;
}
close $f;

my $t = LLM->new(engine => [qw(--device null --model_name m)], workers => 2,
    listen => 'sndbuf=8k', location => 'llm_output_buffer 2k;',
    server => 'location /dry/ { llm_pass main; llm_limit_dry_run on; }'
        . 'location /quiet/ { llm_pass main; llm_limit_headers off;'
        . ' llm_limit_status 503; llm_limit_log_level notice; }',
    conf => "llm_key_file $dir/keys; llm_zone llm:1m state=$dir/state;\n"
        . "llm_usage_log $dir/usage.log;\n" . <<'CONF' . "access_log $dir/limits.log limits;\n");
    log_format limits '$http_authorization|$llm_limit_status|$llm_limit_reason'
        '|$llm_priority|$llm_max_tokens|$llm_charged_tokens|$llm_token_time';
    llm_tenant odd { requests 60 burst=1; budget 1000 per=month; priority 3;
        token_weights output=2.5; }
    llm_tenant req { requests 60 burst=5; }
    llm_tenant keyed { requests 600 burst=100; key_requests 60 burst=2; }
    llm_tenant tok { tokens 6000 burst=200; }
    llm_tenant out { tokens 600000 burst=600000; }
    llm_tenant day { budget 300 per=day; }
    llm_tenant month { budget 300 per=month; key_budget 100 per=day; }
    llm_tenant weigh { tokens 60 burst=1000; token_weights input=0 cached=0 output=2.5; }
    llm_tenant dry { requests 1; tokens 60 burst=10; }
CONF

my %body = (model => 'm', prompt => 'x', max_tokens => 10, ignore_eos => JSON::PP::true);

sub ask {
    my ($key, $more, $path) = @_;
    return $t->post(($path // '/v1') . '/completions', { %body, %{ $more // {} } },
        Authorization => "Bearer $key");
}

sub error { LLM->decode($_[0]{body})->{error} }
sub used { LLM->decode($_[0]{body})->{usage}{total_tokens} }

# --- requests a minute -------------------------------------------------------

my @r = map { ask('req1') } 1 .. 5;
is(join(' ', map { $_->{status} } @r), '200 200 200 200 200', 'the burst');
is(join(' ', map { $_->{headers}{'x-ratelimit-remaining-requests'} } @r), '4 3 2 1 0',
    'remaining falls');
is($r[0]{headers}{'x-ratelimit-limit-requests'}, 60, 'the limit');
like($r[4]{headers}{'x-ratelimit-reset-requests'}, qr/^4\d\d\dms$/, 'when it is full again');
my $r = ask('req2');
is($r->{status}, 429, "one more, by another of the tenant's keys");
is(error($r)->{code}, 'rate_limit_exceeded', 'its code');
is(error($r)->{type}, 'requests', 'its type');
is($r->{headers}{'retry-after'}, 1, 'Retry-After');
cmp_ok($r->{headers}{'retry-after-ms'}, '<=', 1001, 'and in milliseconds');
sleep $r->{headers}{'retry-after-ms'} / 1000;
is(ask('req1')->{status}, 200, 'after that time there is one');
is(ask('req1')->{status}, 429, 'and no other');

is(join(' ', map { ask('keyed1')->{status} } 1 .. 3), '200 200 429', "a key's own limit");
is(join(' ', map { ask('keyed2')->{status} } 1 .. 3), '200 200 429', "another key's");
$r = ask('keyed3');
is($r->{headers}{'x-ratelimit-remaining-requests'}, 1, 'the tighter one is shown');
like(error(ask('keyed1'))->{message}, qr/of this key/, 'and named');

# --- tokens a minute ---------------------------------------------------------

$r = ask('tok1', { max_tokens => 50 });
is($r->{status}, 200, 'tokens: fits');
my $first = used($r);
my $left = $r->{headers}{'x-ratelimit-remaining-tokens'};
cmp_ok($left, '>=', 200 - $first, 'what was used is gone');
cmp_ok($left, '<=', 200 - $first + 30, 'and little has come back meanwhile');
$r = ask('tok1', { max_tokens => 1000 });
is($r->{status}, 400, 'more than it ever holds');
is(error($r)->{code}, 'tokens_exceed_limit', 'its code');
ok(!exists $r->{headers}{'retry-after'}, 'no Retry-After');
my $n = 0;
$n++ while $n < 20 && ($r = ask('tok2', { max_tokens => 50 }))->{status} == 200;
cmp_ok($n, '<=', 4, 'then it is empty');
is($r->{status}, 429, 'refused');
is(error($r)->{type}, 'tokens', 'its type');
sleep $r->{headers}{'retry-after-ms'} / 1000;
is(ask('tok1', { max_tokens => 50 })->{status}, 200, 'after the time it said');

# max_tokens is reserved, what is not used comes back
$r = ask('out1', { max_tokens => 3000, stop => ['.'], ignore_eos => JSON::PP::false });
is($r->{status}, 200, 'a short answer to a long limit');
cmp_ok($r->{headers}{'x-ratelimit-remaining-tokens'}, '>=', 600000 - used($r), 'the rest is back');

# twenty at once, each could use half of what there is
{
    my @s = map {
        my $s = $t->connect;
        print $s $t->request_text('POST', '/v1/completions', { %body, max_tokens => 100 },
            Authorization => 'Bearer weigh' . (1 + $_ % 3));
        LLM::Stream->new($s);
    } 1 .. 20;
    my @got = map { $_->whole } @s;
    is(scalar(grep { $_->{status} == 200 } @got), 4,
        'twenty at once: four fit, at 2.5 for each of 100 tokens');
    is(scalar(grep { $_->{status} == 429 } @got), 16, 'the others are refused');
}

# --- budgets -----------------------------------------------------------------

my $spent = 0;
while ($spent < 1000 && ($r = ask('day1', { max_tokens => 50 }))->{status} == 200) {
    $spent += used($r);
}
is($r->{status}, 429, 'a budget ends');
is(error($r)->{code}, 'insufficient_quota', 'its code');
cmp_ok($spent, '<=', 300, 'not above it');
cmp_ok($spent, '>', 200, 'and not far below');
cmp_ok($r->{headers}{'retry-after'}, '<=', 86401, 'until midnight');

$spent = 0;
for my $key (qw(month1 month2 month3)) {
    while ($spent < 1000 && ($r = ask($key, { max_tokens => 20 }))->{status} == 200) {
        $spent += used($r);
    }
}
cmp_ok($spent, '<=', 300, 'a budget of the month');
cmp_ok($spent, '>', 300 - 3 * 40, 'by several keys');

$t->stop('nginx', 'QUIT');
ok($t->start_nginx, 'nginx is started anew');
$t->wait_ready;
is(ask('day1', { max_tokens => 50 })->{status}, 429, 'and remembers');
is(ask('free1')->{status}, 200, 'who has no limit has none');
ok(!(grep { /ratelimit/ } keys %{ ask('free1')->{headers} }), 'and no such headers');
ok($t->reload, 'reload');
is(ask('day1', { max_tokens => 50 })->{status}, 429, 'a reload remembers too');

# another master beside this one, which only a daemon does
sub master { (LLM::_slurp("$t->{dir}/nginx.pid") =~ /(\d+)/)[0] }
if (!$ENV{LLM_NGINX}) {
    $t->stop('nginx', 'QUIT');
    $t->write_conf($t->conf_text =~ s/daemon off/daemon on/r);
    system('/usr/sbin/nginx', '-p', $t->{dir}, '-e', "$t->{dir}/error.log", '-c', "$t->{dir}/nginx.conf");
    $t->wait_ready;
    my $old = master();
    kill USR2 => $old;
    ok($t->wait_for(sub { -e "$t->{dir}/nginx.pid.oldbin" && master() && master() != $old }, 5),
        'a binary upgrade');
    $t->wait_ready;
    is(join(' ', map { ask('day1', { max_tokens => 50 })->{status} } 1 .. 8),
        join(' ', (429) x 8), 'both masters remember');
    kill QUIT => $old;
    ok($t->wait_for(sub { !kill 0 => $old }, 10), 'the old one ends');
    is(ask('day1', { max_tokens => 50 })->{status}, 429, 'and so does the new one');
    my $new = master();
    kill QUIT => $new;
    ok($t->wait_for(sub { !kill 0 => $new }, 10), 'it ends');
    ok($t->start_nginx, 'as before');
    $t->wait_ready;
}

# --- refused, and not ---------------------------------------------------------

is(join(' ', map { ask('dry1', { max_tokens => 9 }, '/dry')->{status} } 1 .. 4),
    '200 200 200 200', 'dry run refuses nothing');
like($t->error_log, qr/llm limit, dry run: The requests a minute of this tenant/, 'and says so');

# --- as the operator wants it ---------------------------------------------------

my $whole = ask('odd1', {}, '/quiet');
my $refused = ask('odd2', {}, '/quiet');
is("$whole->{status} $refused->{status}", '200 503', 'llm_limit_status');
ok(!(grep { /ratelimit/ } map { keys %{ $_->{headers} } } $whole, $refused), 'llm_limit_headers');
ok($refused->{headers}{'retry-after'}, 'which leaves Retry-After');
like($t->error_log, qr/\[notice\].*llm limit: The requests a minute of this tenant/,
    'llm_limit_log_level');
like($t->error_log, qr/\[error\].*llm limit: The requests a minute of this tenant/,
    'its default');
sub logged {
    my ($key, $nth) = @_;
    my @got;
    $t->wait_for(sub {
        @got = LLM::_slurp("$dir/limits.log") =~ /^Bearer $key\|(.*)$/mg;
        @got > ($nth // 0);
    }, 5);
    return $got[$nth // 0];
}
my $cost = LLM->decode($whole->{body})->{usage}{prompt_tokens} + 25;
like(logged('odd1'), qr/^PASSED\|-\|3\|10\|$cost\.000\|\d+\.\d\d\d$/, 'the variables');
is(logged('odd2'), 'REJECTED|requests|3|-|-|-', 'of who is refused');
like(logged('dry1', 3), qr/^REJECTED_DRY_RUN\|tokens\|0\|9\|/, 'of who would have been');
like(logged('day1', -1), qr/^REJECTED\|day\|/, 'by a budget');
like(logged('free1'), qr/^-\|-\|0\|10\|-\|/, 'of who has no limits');

# a client that leaves costs what it used
{
    my $before = ask('out2')->{headers}{'x-ratelimit-remaining-tokens'};
    my $s = $t->connect(rcvbuf => 2048);
    print $s $t->request_text('POST', '/v1/completions', { %body, max_tokens => 4000,
        stream => JSON::PP::true }, Authorization => 'Bearer out1');
    my $stream = LLM::Stream->new($s);
    $stream->next_event for 1 .. 3;
    my $during = ask('out3')->{headers}{'x-ratelimit-remaining-tokens'};
    cmp_ok($during, '<', 600000 - 3000, 'while it runs all that it may use is taken');
    $stream->close;
    my ($after, $line);
    ok($t->wait_for(sub {
        ($line) = grep { $_->{finish} eq 'abort' } map { LLM->decode($_) }
            split /\n/, LLM::_slurp("$dir/usage.log");
        $line;
    }, 10), 'it left');
    $after = ask('out3')->{headers}{'x-ratelimit-remaining-tokens'};
    cmp_ok($line->{completion_tokens}, '<', 4000, 'before its end');
    cmp_ok($after, '>=', $before - $line->{completion_tokens} - $line->{prompt_tokens} - 60,
        'what it did not use is back');
}

# --- a killed worker gives back what its requests did not use -------------------

{
    my $s = $t->connect(rcvbuf => 2048);
    print $s $t->request_text('POST', '/v1/completions', { %body, max_tokens => 4000,
        stream => JSON::PP::true }, Authorization => 'Bearer out1');
    my $stream = LLM::Stream->new($s);
    $stream->next_event for 1 .. 3;
    kill 'KILL', $t->pids;
    $t->allow(qr/exited on signal 9/);
    ok($t->wait_for(sub { LLM::_slurp("$dir/usage.log") =~ /"recovered":true/ }, 10),
        'a worker is killed');
    $t->wait_ready;
    my ($line) = grep { $_->{recovered} } map { LLM->decode($_) }
        split /\n/, LLM::_slurp("$dir/usage.log");
    cmp_ok($line->{prompt_tokens}, '>', 0, 'the prompt had been counted');
    cmp_ok(ask('out3')->{headers}{'x-ratelimit-remaining-tokens'}, '>', 600000 - 4000,
        'its reservation is settled');
}

$t->done;
