#!/usr/bin/env perl
# A confused engine: nonsense in the handshake, in the rings, silence, death at
# any moment.  The worker detaches, logs, fails those requests and lives on.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;
use Time::HiRes qw(sleep);

my $t = LLM->new(workers => 1, location =>
    'llm_first_token_timeout 2s; llm_token_timeout 2s; llm_request_timeout 20s;');
# a hostile ring is logged at alert; everything else would be a fault
$t->allow(qr/llm/);
my $worker;
$t->wait_for(sub { ($worker) = $t->pids }, 10);  # the master forks it after it is back
my %short = (model => 'fake', prompt => 'x', max_tokens => 20);

sub fake { # until the worker has it, or has had the time to try
    my ($attaches, @args) = @_;
    unlink $t->{socket};
    my $pid = $t->_spawn(fake => "$t->{dir}/fake.log", LLM->build . '/fake_engine',
        $t->{socket}, @args);
    $t->wait_for(sub { -S $t->{socket} }, 5) or diag('no fake engine');
    chmod 0666, $t->{socket};
    if ($attaches) {
        ok($t->wait_for(sub { $t->error_log =~ / attached: pid $pid,/ }, 5), "@args: attached");
    } else {
        sleep 0.5;
    }
}

sub end { $t->signal(fake => 'KILL'); $t->reap('fake') }

fake(1);
$t->wait_ready(5);
my $r = $t->post('/v1/completions', { %short });
is($r->{status}, 200, 'the fake engine answers when it behaves') or diag $r->{body};
end();

for my $case (['--refuse'], ['--bad-version'], ['--hang-hello'], ['--not-ready']) {
    fake(0, @$case);
    $r = $t->post('/v1/completions', { %short });
    is($r->{status}, 503, "@$case: 503");
    is($t->get('/ready')->{status}, 503, "@$case: not ready");
    end();
}

my @cases = (
    (map { ["--garbage-ring=$_"] } qw(tail len type epoch slot gen choice text done)),
    ['--die-after', 0], ['--die-after', 3], ['--never-done'], ['--error', 1],
);
for my $case (@cases) {
    fake(1, @$case);
    ok($t->wait_for(sub { $t->get('/ready')->{status} == 200 }, 3), "@$case: ready");
    my $alerts = () = $t->error_log =~ /\[alert\]/g;
    my $s = $t->stream('/v1/completions', { %short });
    my $status = $s->status(10);
    my @e;
    while (defined(my $e = $s->next_event(10))) { push @e, $e }
    ok($status == 503 || $status == 504 || $status == 500
        || ($status == 200 && "@e" =~ /"error"/), "@$case: $status, an error reaches the client")
        or diag("@e");
    ok(!$s->{timeout}, "@$case: in time");
    cmp_ok(scalar(() = $t->error_log =~ /\[alert\]/g), '>', $alerts,
        "@$case: logged at alert") if $case->[0] =~ /garbage/;
    end();
}

# alive by its socket, dead by its heartbeat: taken for hung
fake(1, '--no-heartbeat', '--rate', 1);
$t->wait_for(sub { $t->get('/ready')->{status} == 200 }, 3);
my $s = $t->stream('/v1/completions', { %short, max_tokens => 100 });
my @e;
my $status = $s->status(15);
while (defined(my $e = $s->next_event(15))) { push @e, $e }
ok($status == 503 || "@e" =~ /"error"/, "no heartbeat: the request fails ($status)")
    or diag("@e");
like($t->error_log, qr/heartbeat/, 'and the log says why');
end();

is(($t->pids)[0], $worker, 'the worker never died');
fake(1);
ok($t->wait_for(sub { $t->post('/v1/completions', { %short })->{status} == 200 }, 5),
    'and serves the next engine');
end();

$t->done;
