# Catches: a request that is refused because the worker has no room for a
# moment; a tenant that waits behind another one's many; one who waits for
# ever, or after its client has left; an engine without room that stops others.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;
use Time::HiRes qw(sleep time);

my @engine = qw(--device null --model_name m --context 8192 --slots 1 --step_min 5ms);
my $t = LLM->new(engine => [@engine], workers => 1, no_nginx => 1,
    location => 'llm_tenant_key $http_x_tenant;', server => <<'CONF');
        location /brief/ { llm_pass brief; }
        location /silent/ { llm_pass brief; llm_ping_interval 50ms; }
        location /other/ { llm_pass other; }
CONF
my $path = "$t->{dir}/other.sock";
$t->{conf} .= "llm_usage_log $t->{dir}/usage.log;\n"
    . "llm_engine brief { server unix:$t->{socket}; queue 2 timeout=700ms; }\n"
    . "llm_engine other { server unix:$path; }\n";
$t->_spawn(other => "$t->{dir}/engine.log", LLM->build . '/llm-engine', '--listen', $path,
    @engine[0 .. 5], $> ? () : qw(--socket_group www-data));
$t->wait_for(sub { -S $path }, 10);
# the engine "main" of every test, with a queue of six
my $text = $t->can('conf_text');
{
    no warnings 'redefine';
    *LLM::conf_text = sub { $text->(@_) =~ s/(llm_engine main \{)/$1 queue 6 timeout=20s;/r };
}
$t->start_nginx;
$t->wait_ready;

sub begin {
    my ($where, $tenant, $tokens, %more) = @_;
    my $c = $t->connect;
    print $c $t->request_text('POST', "$where/completions", { model => 'm', prompt => 'x',
        max_tokens => $tokens, %more }, 'X-Tenant' => $tenant);
    return LLM::Stream->new($c);
}
sub engine { my ($n) = @_; (grep { $_->{name} eq $n } @{ $t->status->{engines} })[0] }
sub waiting {
    my ($n, $name, $engine) = @_;
    ok($t->wait_for(sub { engine($engine // 'main')->{worker_waiting} == $n }, 5), $name)
        or diag(engine($engine // 'main')->{worker_waiting});
}
my $true = JSON::PP::true();

# --- who has many waits behind himself ------------------------------------------

my $long = begin('/v1', 'long', 4000, stream => $true);
$long->next_event(10);
my @many;
for (1 .. 6) {
    push @many, begin('/v1', 'many', 2);
    waiting(scalar @many, 'one more waits');
}
is(begin('/v1', 'many', 2)->status(5), 429, 'as many as may wait');
my @few;
for my $n (1 .. 3) {
    push @few, begin('/v1', 'few', 2);
    my $last = pop @many;
    is($last->status(5), 429, "$n of another tenant: the last of the longest line goes");
    ok($last->{headers}{'retry-after'}, 'and knows when to come again');
}
is(begin('/v1', 'few', 2)->status(5), 429, 'but no more than half is another\'s');
waiting(6, 'six wait still');
is(begin('/other', 'many', 2)->status(5), 200, 'another engine has room');

my $gone = $few[1];
$gone->close;
waiting(5, 'a client leaves, and its place is free');
$long->close;
is(join(' ', map { $_->whole(10)->{status} } @many, @few[0, 2]), '200 200 200 200 200',
    'all are served');
waiting(0, 'nobody waits');
$_->close for @many, @few[0, 2];
my @turns = map { $_->{tenant} } grep { $_->{tenant} =~ /^(many|few)$/ && $_->{status} == 200 }
    map { LLM->decode($_) } split /\n/, LLM::_slurp("$t->{dir}/usage.log");
is(join(' ', @turns[-5 .. -1]), 'many few many few many', 'in turns');

# --- not for ever ----------------------------------------------------------------

$long = begin('/brief', 'long', 4000, stream => $true);
$long->next_event(10);
my $start = time;
my $late = begin('/brief', 'late', 2);
my $r = $late->whole(5);
is("$r->{status} " . LLM->decode($r->{body})->{error}{code}, '503 queue_timeout', 'too long');
ok($r->{headers}{'retry-after'}, 'with Retry-After');
cmp_ok(time - $start, '>', 0.6, 'not before its time');
my $silent = begin('/silent', 'late', 2, stream => $true);
is($silent->status(5), 200, 'pings go out meanwhile');
my @e = $silent->events(5);
is($e[-1]{error}{code}, 'queue_timeout', 'and the error after them');
cmp_ok($silent->{pings} // 0, '>', 3, "pings: $silent->{pings}");
$_->close for $late, $silent;

# --- an engine that goes, a reload ---------------------------------------------------

my $held = begin('/v1', 'long', 4000, stream => $true);
$held->next_event(10);
my @wait = map { begin('/v1', "t$_", 3, stream => $true) } 1 .. 3;
waiting(3, 'three wait');
$t->reload;
ok($t->wait_for(sub { $t->error_log =~ /gracefully shutting down/ }, 5), 'a reload');
$held->close;
$_->events(20) for @wait;
is(scalar(grep { $_->{done_seen} } @wait), 3, 'they are served');
$_->close for $long, @wait;

$held = begin('/v1', 'long', 4000, stream => $true);
$held->next_event(10);
@wait = map { begin('/v1', "t$_", 3) } 1 .. 3;
waiting(3, 'three wait');
$t->signal(engine => 'KILL');
$t->reap('engine');
is(join(' ', map { $_->status(10) } @wait), '503 503 503', 'the engine is gone, and they know');
$_->close for $held, @wait;
$t->start_engine(@engine);
ok($t->wait_for(sub { begin('/v1', 'x', 1)->status(5) == 200 }, 10), 'served again');

$t->done;
