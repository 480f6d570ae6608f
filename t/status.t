#!/usr/bin/env perl
# llm_status in both forms, whatever state the engines are in: valid, complete,
# and with numbers that add up with what was done.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

my $t = LLM->new(workers => 1, conf => <<'CONF', server => <<'SERVER');
    llm_engine other.one-2 { server unix:/nowhere/e.sock; }
    llm_tenant single { concurrent 1; priority 3; weight 7; }
CONF
        location /as/ { llm_pass main; llm_tenant_key $http_x_tenant; llm_request_id $http_x_id; }
SERVER

# Parses the Prometheus text form as strictly as it is written down: one HELP
# and one TYPE per name, before its samples, all of a name together.
sub prometheus {
    my ($what) = @_;
    my $r = $t->get('/metrics');
    is($r->{status}, 200, "$what: metrics");
    like($r->{headers}{'content-type'}, qr{^text/plain; version=0\.0\.4}, "$what: type");
    my (%help, %type, %value, @bad, $last);
    for my $line (split /\n/, $r->{body}, -1) {
        if ($line =~ /^# HELP ([a-z_]+) (\S.*)$/) {
            push @bad, "HELP twice: $line" if $help{$1}++;
            $last = $1;
        } elsif ($line =~ /^# TYPE ([a-z_]+) (counter|gauge|histogram)$/) {
            my ($name, $kind) = ($1, $2);
            push @bad, "TYPE twice: $line" if $type{$name};
            push @bad, "TYPE without HELP: $line" if $name ne ($last // '');
            push @bad, "counter without _total: $line"
                if $kind eq 'counter' && $name !~ /_total$/;
            $type{$name} = $kind;
        } elsif ($line =~ /^([a-z_]+?)(?:_(?:bucket|sum|count))?(\{[a-z]+="[^"\\\n]*"(?:,[a-z]+="[^"\\\n]*")*\})? \d+(?:\.\d+)?$/) {
            push @bad, "a sample apart: $line" if $1 ne ($last // '') || !$type{$1};
            my ($sample, $is) = $line =~ /^(.*) (.*)$/;
            push @bad, "a sample twice: $line" if defined $value{$sample};
            $value{$sample} = $is;
        } elsif (length $line) {
            push @bad, $line;
        }
    }
    push @bad, 'no newline at the end' if $r->{body} !~ /\n\z/;
    push @bad, 'no metrics' if !%type;
    push @bad, "HELP without TYPE: $_" for grep { !$type{$_} } keys %help;
    is(join("\n", @bad), '', "$what: valid");
    return \%value;
}

sub json {
    my ($what) = @_;
    my $r = $t->get('/status');
    is($r->{status}, 200, "$what: status");
    is($r->{headers}{'content-type'}, 'application/json', "$what: JSON");
    is($r->{headers}{'content-length'}, length $r->{body}, "$what: its length");
    my $s = eval { $t->decode($r->{body}) };
    ok(ref $s eq 'HASH', "$what: valid") or diag($r->{body});
    is(join(' ', map { $_->{name} } @{ $s->{engines} }), 'main other.one-2',
        "$what: every engine");
    return $s;
}

sub both {
    my ($what, $attached) = @_;
    my $e = json($what)->{engines}[0];
    my $p = prometheus($what);
    is(!!$e->{attached}, !!$attached, "$what: attached or not");
    is($p->{'llm_worker_up{engine="main",worker="0"}'}, $attached ? 1 : 0, "$what: up");
    is($p->{'llm_worker_up{engine="other.one-2",worker="0"}'}, 0, "$what: the other is not");
    return ($e, $p);
}

# --- no engine
my ($e, $p) = both('no engine', 0);
ok(!defined $p->{'llm_requests_total{engine="main"}'}, 'no numbers are made up');

# --- attached
$t->{engine} = [qw(--device null --model_name m --step_min 10ms --context 4096
    --slots 100 --drain_timeout 20s)];
$t->start_engine;
ok($t->wait_for(sub { $t->get('/status')->{body} =~ /"ready":true/ }, 5), 'attaches');
($e, $p) = both('attached', 1);
is($e->{engine_pid}, $t->{pids}{engine}, 'its pid');
is_deeply($e->{models}, ['m'], 'its models');
is($e->{worker_slots}, 100, 'its slots');
is($e->{attachments}, 1, 'one worker');
cmp_ok($e->{blocks_total}, '>', 0, 'blocks');

# --- known work: usage and counters
my %usage = (prompt_tokens => 0, completion_tokens => 0);
my %did = (done => 0, failed => 0, cancelled => 0);

sub add {
    my ($u) = @_;
    $usage{$_} += $u->{$_} for keys %usage;
    $did{done}++;
}

my %ok = (model => 'm', prompt => 'hello you');
for my $n (1 .. 5) {
    my $r = $t->post('/v1/completions', { %ok, max_tokens => 3 * $n, n => $n });
    add($t->decode($r->{body})->{usage});
}
my $s = $t->stream('/v1/chat/completions', { model => 'm', max_tokens => 9,
    messages => [{ role => 'user', content => 'hello' }],
    stream_options => { include_usage => JSON::PP::true } });
add(($s->events)[-1]{usage});

# refused by the worker: the engine does not hear of it
is($t->post('/v1/completions', { %ok, n => 0 })->{status}, 400, 'refused here');
is($t->post('/v1/completions', { %ok, model => 'x' })->{status}, 404, 'refused here');
# refused by the engine
is($t->post('/v1/completions', { %ok, prompt => 'x' x 9000 })->{status}, 400,
    'refused there');
$did{failed}++;

ok($t->wait_for(sub { $t->metric('requests_held') == 0 }, 5), 'at rest');
($e, $p) = both('after six', 1);
is($e->{prompt_tokens}, $usage{prompt_tokens}, 'prompt tokens are the usages\' sum');
is($e->{completion_tokens}, $usage{completion_tokens}, 'completion tokens, too');
is($e->{requests_total}, $did{done} + $did{failed}, 'requests');

# with clients that leave
for my $n (1 .. 4) {
    $s = $t->stream('/v1/completions', { %ok, max_tokens => 2000 });
    $s->next_event for 1 .. $n;
    $e = $t->status->{engines}[0];
    is($e->{requests_running}, 1, 'one runs');
    is($e->{requests_held}, 1, 'one is held');
    is($e->{worker_slots_used}, 1, 'one slot is used');
    is($e->{blocks_free} + $e->{blocks_private} + $e->{blocks_cached}
        + $e->{blocks_transit}, $e->{blocks_total}, 'every block is something');
    $s->close;
    $did{cancelled}++;
    ok($t->wait_for(sub { $t->metric('worker_slots_used') == 0 }, 5), 'slot free');
}
($e, $p) = both('after aborts', 1);
is($e->{"requests_$_"}, $did{$_}, "requests_$_") for sort keys %did;
is($e->{requests_total}, $did{done} + $did{failed} + $did{cancelled},
    'every request has ended in one way');
is($p->{"llm_requests_${_}_total{engine=\"main\"}"}, $did{$_}, "metric requests_$_")
    for sort keys %did;
for my $name (qw(blocks_total blocks_free prompt_tokens completion_tokens turns)) {
    my ($v) = map { $p->{$_} } grep { /^llm_$name(?:_total)?\{engine="main"\}$/ } keys %$p;
    is($v, $e->{$name}, "$name is one number in both forms");
}

# counters do not fall, and reading them does not count
my $before = $t->status->{engines}[0];
$t->get('/metrics') for 1 .. 5;
my $after = $t->status->{engines}[0];
is($after->{$_}, $before->{$_}, "$_ is still") for qw(requests_total completion_tokens turns);

# --- in the middle of a stream, then draining
$s = $t->stream('/v1/completions', { %ok, max_tokens => 150 });
$s->next_event;
both('running', 1);
$t->signal(engine => 'TERM');
ok($t->wait_for(sub { $t->metric('worker_draining') }, 5), 'draining');
($e, $p) = both('draining', 0);
is($e->{worker_draining}, 1, 'one attachment drains');
is($e->{worker_slots_used}, 1, 'with one request');
is($t->post('/v1/completions', { %ok })->{status}, 503, 'no others');
my @e = $s->events(10);
ok($s->{done_seen}, 'which ends');
is($t->reap('engine', 10), 0, 'and the engine');
ok($t->wait_for(sub { $t->status->{engines}[0]{worker_draining} == 0 }, 5), 'gone');
both('gone', 0);

# --- another one
$t->start_engine;
ok($t->wait_for(sub { $t->get('/status')->{body} =~ /"ready":true/ }, 5), 'another comes');
($e, $p) = both('another', 1);
is($e->{worker_attachments}, 2, 'the second attachment');
is($e->{requests_total}, 0, 'its own counters');

# --- who is in it: one decodes, one waits, one's prompt is being computed
is_deeply($e->{requests}, [], 'nobody');
$t->stop('engine', 'TERM');
$t->start_engine(qw(--batch_tokens 8 --block_tokens 8 --step_target 2s));
ok($t->wait_for(sub { $t->get('/status')->{body} =~ /"ready":true/ }, 5), 'a slow one comes');

sub as {
    my ($tenant, $id, $prompt) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', '/as/completions', { %ok, prompt => $prompt,
        max_tokens => 900, stream => JSON::PP::true }, 'X-Tenant' => $tenant, 'X-Id' => $id);
    return LLM::Stream->new($c);
}
sub list { my $l = $t->status->{engines}[0]{requests}; +{ map { $_->{id} => $_ } @$l } }

my @open = as('single', 'decoding', 'hello');
$open[0]->next_event(5);
push @open, as('single', 'waiting', 'hello');
push @open, as('other', 'prefilling', 'y' x 3000);
my $l;
ok($t->wait_for(sub {
    $l = list();
    3 == keys %$l && $l->{prefilling}{state} eq 'prefill' && $l->{prefilling}{computed_tokens};
}, 5), 'three are there') or diag($t->encode($t->status));
is(join(' ', map { "$_:$l->{$_}{state}" } sort keys %$l),
    'decoding:decode prefilling:prefill waiting:waiting', 'and how they stand');
is($l->{$_}{tenant}, 'single', "$_: its tenant") for qw(decoding waiting);
is($l->{decoding}{class}, 3, 'its class');
is($l->{decoding}{max_tokens}, 900, 'its limit');
is($l->{prefilling}{tenant}, 'other', 'another one');
cmp_ok($l->{decoding}{completion_tokens}, '>', 0, 'tokens of the one');
is($l->{decoding}{blocks}, POSIX::ceil($l->{decoding}{computed_tokens} / 8), 'its blocks');
is("$l->{waiting}{blocks} $l->{waiting}{computed_tokens}", '0 0', 'none of the other');
cmp_ok($l->{prefilling}{prompt_tokens}, '>=', 3000, 'a long prompt');
my $step = $t->status->{engines}[0]{step};
is("$step->{tokens_max} $step->{target_us}", '8 2000000', "a step's limits");
is($step->{decode_rows} + $step->{prefill_tokens}, 8, 'a full step') or diag($t->encode($step));
sleep 0.3;
my $m = list();
cmp_ok($m->{waiting}{wait_ms}, '>=', $l->{waiting}{wait_ms} + 250, 'one waits on');
is($m->{decoding}{wait_ms}, $l->{decoding}{wait_ms}, 'one has waited');
cmp_ok($m->{decoding}{completion_tokens}, '>', $l->{decoding}{completion_tokens}, 'one goes on');
cmp_ok($m->{prefilling}{computed_tokens}, '>', $l->{prefilling}{computed_tokens},
    'a prompt is worked on');
$open[0]->close;
ok($t->wait_for(sub { $l = list(); !$l->{decoding} && $l->{waiting}{state} ne 'waiting' }, 5),
    'who leaves is gone, who waited starts');
$_->close for @open[1, 2];
ok($t->wait_for(sub { !%{ list() } }, 5), 'all gone');
unlike($t->get('/metrics')->{body}, qr/prefilling|decoding/, 'nothing of that in the metrics');

# --- methods
for my $path ('/status', '/metrics', '/health') {
    is($t->post($path, {})->{status}, 405, "$path: no POST");
    my $head = $t->connect;
    print $head $t->request_text('HEAD', $path);
    my $in = LLM::Stream->new($head);
    1 while $in->fill(5);
    like($in->{raw}, qr{^HTTP/1.1 200.*\r\n\r\n\z}s, "$path: HEAD has no body");
}

$t->done;
