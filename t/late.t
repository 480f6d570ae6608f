#!/usr/bin/env perl
# nginx starts without an engine and serves 503 until one comes; two engines
# beside each other; a dead socket file and a live engine on the path.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $t = LLM->new;
my %short = (model => 'm', prompt => 'x', max_tokens => 3);
my $r = $t->post('/v1/completions', { %short });
is($r->{status}, 503, 'no engine: 503');
ok($r->{headers}{'retry-after'}, 'Retry-After');
is($t->get('/ready')->{status}, 503, 'not ready');
is($t->get('/status')->{status}, 200, 'status answers');
ok(eval { $t->status->{engines} }, 'with JSON');

$t->{engine} = [qw(--device null --model_name m)];
$t->start_engine;
$t->wait_ready;
is($t->post('/v1/completions', { %short })->{status}, 200, 'engine came: served');

# a second engine on the same path refuses to start, in one sentence
sub try_engine {
    my (@args) = @_;
    my $out = `@{[ LLM->build ]}/llm-engine @args 2>&1 </dev/null`;
    return ($? >> 8, $? & 127, $out);
}
my ($rc, $sig, $out) = try_engine("--device null --listen $t->{socket}");
is($rc, 1, 'a live socket is not taken over');
is($sig, 0, 'no crash');
like($out, qr/\Q$t->{socket}\E/, 'and is named');
is($t->post('/v1/completions', { %short })->{status}, 200, 'the first goes on');

# killed: its socket file stays behind, and is replaced
$t->signal(engine => 'KILL');
$t->reap('engine');
ok(-S $t->{socket}, 'a stale socket');
$t->start_engine;
$t->wait_ready;
is($t->post('/v1/completions', { %short })->{status}, 200, 'is replaced');

for my $case (['a' x 200, 'too long'], ['no/such/dir/e.sock', 'no directory']) {
    my ($path, $what) = @$case;
    ($rc, $sig, $out) = try_engine("--device null --listen $t->{dir}/$path");
    is("$rc $sig", '1 0', "$what: exit 1");
    is(() = $out =~ /\n/g, 1, 'one line') or diag($out);
}

# a directory that the engine may not write to; root may, so root tries as nobody
mkdir "$t->{dir}/closed", 0555;
system('cp', LLM->build . '/llm-engine', "$t->{dir}/engine-copy") == 0 or die 'cp';
my $pid = open(my $p, '-|') // die "fork: $!";
if (!$pid) {
    open STDERR, '>&', \*STDOUT;
    if ($> == 0) { $) = '65534 65534'; $( = 65534; $< = $> = 65534 }
    exec "$t->{dir}/engine-copy", qw(--device null --listen), "$t->{dir}/closed/e.sock";
}
$out = join '', <$p>;
close $p;
is($?, 256, 'no permission: exit 1');
is(() = $out =~ /\n/g, 1, 'one line') or diag($out);
like($out, qr/closed.*[Pp]ermission/, 'that says so');

# two engines, chosen by location and by model
$t->stop(nginx => 'TERM');
my $two = "$t->{dir}/two.sock";
$t->_spawn(two => "$t->{dir}/engine.log", LLM->build . '/llm-engine', '--listen',
    $two, qw(--device null --model_name second), $> ? () : qw(--socket_group www-data));
$t->wait_for(sub { -S $two }, 10);
$t->{conf} = "llm_engine second { server unix:$two; reconnect 50ms 200ms; }";
$t->{server} = 'location /two/v1/ { llm_pass second; }';
ok($t->start_nginx, 'nginx with two engines');
$t->wait_ready;
ok($t->wait_for(sub { $t->get('/two/v1/models')->{status} == 200 }, 5), 'both attach');
$r = $t->post('/two/v1/completions', { %short, model => 'second' });
is($r->{status}, 200, 'the second answers') or diag $r->{body};
is($t->post('/two/v1/completions', { %short })->{status}, 404, 'and knows only its model');
is($t->post('/v1/completions', { %short })->{status}, 200, 'the first still');
$t->stop(two => 'TERM');
is($t->post('/two/v1/completions', { %short, model => 'second' })->{status}, 503,
    'one gone: 503 there');
is($t->post('/v1/completions', { %short })->{status}, 200, 'the other serves on');

$t->done;
