# Catches: numbers of a tenant that are not those of its requests, or fall;
# a form that Prometheus' own client does not read; buckets that do not add up;
# labels without bound; a board or an alert that asks for what is not there.

use strict;
use warnings;
use lib 't/lib';
use Digest::SHA 'sha256_hex';
use IPC::Open2;
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my $dir = File::Temp::tempdir('/tmp/ngx_llm_t.XXXXXX', CLEANUP => 1);
chmod 0777, $dir;
open my $f, '>', "$dir/keys" or die $!;
print $f sha256_hex("$_ key"), " id-$_ $_\n" for 'acme', 'poor', map { "t$_" } 1 .. 40;
close $f;

my $t = LLM->new(engine => [qw(--device null --model_name m --step_min 10ms --context 4096)],
    workers => 2, conf => <<"CONF", server => 'location /open/ { llm_pass main; llm_auth off; }');
    llm_key_file $dir/keys;
    llm_zone llm:256k;
    llm_tenant poor { requests 60 burst=2; budget 100000 per=day; budget 500000 per=month; }
CONF

my %body = (model => 'm', prompt => 'some words', max_tokens => 20);
sub ask {
    my ($who, %more) = @_;
    return $t->post('/v1/completions', { %body, %more }, Authorization => "Bearer $who key");
}

# { sample with sorted labels => value }, by Prometheus' client or by ourselves
my ($client, $types) = (1);
sub samples {
    my $text = $t->get('/metrics')->{body};
    my $root = LLM->root . '/tests';
    my $pid = open2(my $out, my $in, "$root/python.sh", 'prometheus_client', '0.26.0',
        "$root/prometheus/samples.py");
    print $in $text;
    close $in;
    my $json = do { local $/; <$out> };
    waitpid $pid, 0;
    if ($json =~ /^1\.\.0 # SKIP (.*)/) {
        $client = 0;
        return { map { /^([^#]\S+) (\S+)$/ ? ($1 => $2) : () } split /\n/, $text };
    }
    is($?, 0, "Prometheus' client reads it");
    my $d = LLM->decode($json);
    $types = $d->{types};
    return { map {
        my $l = $_->[1];
        ($_->[0] . (%$l ? '{' . join(',', map { qq($_="$l->{$_}") }
            sort { ($b eq 'tenant') - ($a eq 'tenant') || $a cmp $b } keys %$l) . '}' : ''),
            $_->[2])
    } @{ $d->{samples} } };
}

sub tenant {
    my ($s, $name, $tenant, $more) = @_;
    return $s->{ "llm_$name" . "{tenant=\"$tenant\"" . ($more ? ",$more" : '') . '}' };
}

# --- what was done -----------------------------------------------------------

my %used = (prompt => 0, completion => 0);
for (1 .. 5) {
    my $r = ask('acme');
    my $u = LLM->decode($r->{body})->{usage};
    $used{$_} += $u->{"${_}_tokens"} for keys %used;
}
is(ask('acme', temperature => -1)->{status}, 400, 'a bad one');
is(ask('acme', model => 'none')->{status}, 404, 'another');
is(join(' ', map { ask('poor')->{status} } 1 .. 4), '200 200 429 429', 'refused');
is(ask('nobody')->{status}, 401, 'a key of nobody');
is($t->post('/open/completions', \%body)->{status}, 200, 'without a key');
my $s = $t->connect;
print $s $t->request_text('POST', '/v1/completions',
    { %body, max_tokens => 3000, stream => JSON::PP::true() }, Authorization => 'Bearer acme key');
my $stream = LLM::Stream->new($s);
$stream->next_event for 1 .. 3;

my $m = samples();
is(tenant($m, 'tenant_requests_open', 'acme'), 1, 'one is open');
$stream->close;
ok($t->wait_for(sub { $m = samples(); tenant($m, 'tenant_requests_open', 'acme') == 0 }, 10),
    'and then none');

my $ends = sub { join ' ', map { tenant($m, 'tenant_requests_total', $_[0], "end=\"$_\"") // '-' }
    qw(ok refused client_error server_error abort) };
is($ends->('acme'), '5 0 2 0 1', 'ends');
is($ends->('poor'), '2 2 0 0 0', 'refused ones');
is($ends->(''), '1 0 1 0 0', 'those of nobody');
is($ends->('*'), '- - - - -', 'no rest yet');
is(tenant($m, 'tenant_budget_tokens', 'poor', 'per="month"'), 500000, 'a budget');
cmp_ok(tenant($m, 'tenant_budget_used_tokens', 'poor', 'per="day"'), '>', 40, 'used');
is(tenant($m, 'tenant_budget_tokens', 'acme', 'per="day"'), undef, 'no budget');
cmp_ok(tenant($m, 'tenant_completion_tokens_total', 'acme'), '>=', $used{completion} + 3,
    'tokens of the one that was cut are counted too');

# --- times -------------------------------------------------------------------

my @le = qw(0.001 0.002 0.005 0.010 0.020 0.050 0.100 0.200 0.500 1.000 2.000 5.000 10.000
    20.000 60.000 300.000 +Inf);
sub histogram {
    my ($name, $who) = @_;
    my @n = map { tenant($m, "${name}_bucket", $who, "le=\"$_\"") } @le;
    is(scalar(grep { !defined } @n), 0, "$name: all buckets") or return (0, 0);
    is(scalar(grep { $n[$_] < $n[ $_ - 1 ] } 1 .. $#n), 0, "$name: none falls");
    is($n[-1], tenant($m, "${name}_count", $who), "$name: the last one is the count");
    return ($n[-1], tenant($m, "${name}_sum", $who));
}
my ($n, $sum) = histogram('first_token_seconds', 'acme');
is($n, 6, 'first tokens');
cmp_ok($sum, '>', 0.01, 'took their time');
($n, $sum) = histogram('inter_token_seconds', 'acme');
cmp_ok($n, '>=', 5 * 10, 'tokens behind them');
cmp_ok($sum / ($n || 1), '>', 0.005, 'a step apart');
($n, $sum) = histogram('request_seconds', 'acme');
is($n, 6, 'requests that ran');
cmp_ok($sum, '>=', 5 * 0.15, 'took 20 steps each');
is((histogram('queue_seconds', 'acme'))[0], 5, 'waits of those that ended');
is((histogram('request_seconds', 'poor'))[0], 2, "another tenant's");

# --- labels are bounded ------------------------------------------------------

is(ask("t$_", max_tokens => 1)->{status}, 200, "tenant $_") for 1 .. 40;
ok($t->wait_for(sub { $t->metric('requests_held') == 0 }, 10), 'at rest');
my $before = $m;
$m = samples();
my %tenants = map { /\{tenant="([^"]*)"/ ? ($1 => 1) : () } keys %$m;
cmp_ok(keys %tenants, '>', 5, keys(%tenants) . ' labels');
cmp_ok(keys %tenants, '<', 20, 'in the smallest zone');
ok($tenants{acme} && $tenants{poor}, 'who came first has its own');
my $all = 0;
$all += tenant($m, 'tenant_requests_total', $_, 'end="ok"') for keys %tenants;
is($all, 5 + 2 + 1 + 40, 'and no request is lost');
cmp_ok(tenant($m, 'tenant_requests_total', '*', 'end="ok"'), '>', 20, 'the rest is one');
is(scalar(grep { /_total|_bucket|_count|_sum/ && !/^llm_worker|turns/ && $m->{$_} < $before->{$_} }
    grep { defined $m->{$_} } keys %$before), 0, 'no counter fell');

# --- a reload keeps them -----------------------------------------------------

ok($t->reload, 'reload');
$m = samples();
is($ends->('acme'), '5 0 2 0 1', 'the same');
my ($json) = grep { $_->{name} eq 'acme' } @{ $t->status->{tenants} };
is_deeply($json->{requests}, { ok => 5, refused => 0, client_error => 2, server_error => 0,
    abort => 1 }, 'in JSON too');

# --- what asks for them ------------------------------------------------------

my %names = map { /^(\w+)/ ? ($1 => 1) : () } keys %$m;
for my $file ('grafana.json', 'alerts.yml') {
    my $text = LLM::_slurp(LLM->root . "/conf/$file");
    LLM->decode($text) if $file =~ /json/;
    my %asked = map { $_ => 1 } $text =~ /\b(llm_\w+)\b/g;
    delete $asked{llm_usage_log}; # the directive
    cmp_ok(keys %asked, '>', 5, "conf/$file asks for " . keys %asked);
    is(join(' ', grep { !$names{$_} } sort keys %asked), '', 'and all of them are there');
}
SKIP: {
    skip("prometheus_client is not to be had", 1) if !$client;
    is($types->{llm_first_token_seconds}, 'histogram', 'types are known');
}

$t->done;
