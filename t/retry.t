# Catches: an engine that lets a request wait for longer than its queue allows,
# and then refuses it; a Retry-After that is the same for everybody, or too
# early, or not what the engine said.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;
use Time::HiRes qw(sleep);

my $t = LLM->new(workers => 1, no_nginx => 1, engine => [qw(--device null --model_name m
    --context 4096 --batch_rows 1 --step_min 10ms)],
    location => 'llm_tenant_key $http_x_tenant; llm_first_token_timeout 3s;');
$t->{conf} .= "llm_tenant some { queue 50 timeout=2s; }\n";
$t->start_nginx;
$t->wait_ready;

# one seat, half a second each
sub begin {
    my ($tenant) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', '/v1/completions', { model => 'm', prompt => 'x',
        max_tokens => 50 }, 'X-Tenant' => $tenant);
    return LLM::Stream->new($c);
}

my (@in, @out);
for (1 .. 14) {
    my $s = begin('some');
    push @in, $s;
    sleep 0.25;
}
my (%status, @after);
for my $s (@in) {
    my $status = $s->status(10);
    $status{$status}++;
    push @after, $s->{headers}{'retry-after'} if $status != 200;
    push @out, $s if $status == 200;
}
cmp_ok($status{200} // 0, '>=', 5, 'who can be served in time is');
cmp_ok($status{429} // 0, '>=', 3, 'and who cannot is refused at once');
cmp_ok($status{503} // 0, '<=', 1, 'hardly anybody waits in vain')
    or diag("503: $status{503}");
my @wrong = grep { !defined || !/^[1-9]\d*$/ || $_ > 10 } @after;
is("@wrong", '', "told when to come back: @after");
cmp_ok($after[-1], '>=', $after[0], 'those who came later not earlier');
$_->whole(10) for @out;

# later it is true
my $again = begin('some');
is($again->status(10), 200, 'served when there is room');
$_->close for @in, $again;

# without a queue's limit, nobody is let in who would get no token in time
$t->wait_for(sub { $t->pool_is_full });
@in = map { sleep 0.2; begin('free') } 1 .. 16;
%status = ();
$status{ $_->status(10) }++ for @in;
cmp_ok($status{429} // 0, '>=', 2, 'nor waits for a first token in vain: '
    . join ' ', map { "$_: $status{$_}" } sort keys %status);
cmp_ok(($status{503} // 0) + ($status{504} // 0), '<=', 3, 'or hardly anybody');
$_->close for @in;

$t->done;
